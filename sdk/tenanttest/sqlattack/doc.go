// Package sqlattack attacks a prepared database with SQL, as somebody would who injects into
// an application's statement or has stolen its password, and reports what came of it.
//
// The attacks are data ([Attacks]), in families. Each runs against a rung of ours in all three
// isolation models and, where that is asked for, beside it against the recipes that everybody
// ships: L0 is a setting that a policy trusts, L1 the same behind a function, with set_config
// taken away. An attack that no recipe falls to shows little, and one that fails for another
// reason than it should shows nothing and is reported so.
//
// It is for tests and for rowhouse prove; it needs no testing.T. The database is a scratch one:
// nothing in it is safe from the attacks, should one succeed.
//
//	report, err := sqlattack.Run(ctx, sqlattack.Target{Admin: dsn, Login: appDSN, App: "notes", Key: key, Baselines: true})
//	err = report.WriteText(os.Stdout)
//
// Start at [Run].
package sqlattack
