package defects

// code is a defence in Go: text of one file that is replaced, and the test that must fail then.
type code struct {
	defence  string
	file     string // from the root of the repository
	from, to string
	pkg      string // where the tests are, from the root; "" is the file's own
	tests    string // a regular expression for -run
	hangs    bool   // the failure is that the test does not end
}

func codes() []code {
	const (
		tx       = "sdk/tenantdb/tx.go"
		verifier = "sdk/tenant/verifier.go"
		server   = "sdk/tenantgrpc/server.go"
		corpus   = "sdk/tenanttest/sqlattack"
	)
	return []code{
		{defence: "verbs of the SDK", file: "sdk/tenantdb/stmt.go", from: `	return Statement{sql: sql, bad: verb + " is not for applications"}`,
			to: "\tquery := home.Parse(sql)\n\treturn Statement{sql: sql, query: &query}", pkg: corpus, tests: "^TestCorpus$/^L2b_SHARED"},
		{defence: "one tenant in a Tx", file: tx, from: "if tc.UID() != tx.at.tenant.UID() {", to: "if tc.UID() != tc.UID() {",
			pkg: "sdk/tenantdb", tests: "^TestConformance$/^SHARED$/^L2b$/^misuse"},
		{defence: "a Tx that writes says so", file: tx, from: `mode := " read write"`, to: `mode := ""`, tests: "TestLeftoversBehindPgBouncer"},
		{defence: "no transaction in a transaction", file: tx, from: "if _, nested := db.holders.Load(goroutine()); nested {",
			to: "if _, nested := db.holders.Load(goroutine()); nested && false {", tests: "^TestConformance$/^SHARED$/^L2b$/^misuse", hangs: true},
		{defence: "no open transaction goes back to the pool", file: "sdk/tenantdb/backends.go",
			from: " && b.PgConn().TxStatus() == 'I'", to: "", tests: "TestOpenTransactionIsNotKept"},
		{defence: "rollback of a failed function", file: tx, from: "	if err := fn(tx); err != nil {\n		return err\n	}",
			to:    "	failed := fn(tx)\n	if failed != nil && !tx.begun {\n		return failed\n	}",
			tests: "^TestConformance$/^SHARED$/^L2b$/^a_transaction"},
		{defence: "a context that expired opens nothing", file: "sdk/tenantdb/db.go", from: "if !db.config.Clock().Before(tc.ExpireTime()) {",
			to: "if tc.ExpireTime().IsZero() {", tests: "TestExpired"},
		{defence: "connections by database", file: "sdk/tenantdb/backends.go", from: "if b.database != database {", to: "if false {",
			pkg: corpus, tests: "^TestCorpus$/^L2b_DATABASE"},
		{defence: "a database for each tenant", file: "sdk/tenantdb/pool.go", from: "at.database = home.Database(app, tc.UID())", to: "",
			pkg: corpus, tests: "^TestCorpus$/^L2b_DATABASE"},
		{defence: "a schema for each tenant", file: "sdk/tenantdb/pool.go", from: "at.schema = home.Schema(tc.UID())", to: "",
			pkg: corpus, tests: "^TestCorpus$/^L2b_SCHEMA"},
		{defence: "renderer puts the schema in", file: "sdk/tenantdb/internal/home/render.go", from: "strings.Join(q.parts, schema)",
			to: "strings.Join(q.parts, SharedSchema)", tests: "TestQuery"},
		{defence: "renderer leaves strings alone", file: "sdk/tenantdb/internal/home/render.go", from: "		s.take(text, enclosed(rest, false))",
			to: "		s.take(symbol, 1)", tests: "TestQuery"},
		{defence: "names of homes hold the whole uid", file: "sdk/tenantdb/internal/home/home.go",
			from: `return "t_" + hex.EncodeToString(uid[:])`, to: `return "t_" + hex.EncodeToString(uid[:8])`, tests: "TestNames"},

		{defence: "a new database is closed", file: "sdk/tenantdb/cell/init.go", from: "REVOKE ALL ON DATABASE %[1]s FROM PUBLIC;\n", to: "",
			tests: "TestOtherAppsCannotConnect|TestInitInManyDatabasesAtOnce"},
		{defence: "init tries its rung", file: "sdk/tenantdb/cell/rung.go", from: "if err := attack(ctx, t, config.App, rung); err != nil {",
			to: "if err := error(nil); err != nil {", tests: "TestInitTriesItsRung"},
		{defence: "init audits what it set up", file: "sdk/tenantdb/cell/init.go", from: "if err := auditPlatform(ctx, conn); err != nil {",
			to: "if err := error(nil); err != nil {", tests: "TestInitAuditsWhatItSetUp"},
		{defence: "migrations are audited", file: "sdk/tenantdb/cell/audit.go",
			from: "catalog.Config{Touched: true, Schemas: schemas})\n	if err != nil {\n		return err\n	}\n	return unsafeIf(report)",
			to:   "catalog.Config{Touched: true, Schemas: schemas})\n	_ = report\n	return err", tests: "TestUnsafeMigrationsAreUndone"},
		{defence: "migrations drop their own", file: "sdk/tenantdb/cell/migrate.go",
			from: "if stray = append(stray, dropped...); len(stray) > 0 {", to: "if _ = dropped; len(stray) > 0 {",
			tests: "TestMigrationsThatDrop"},
		{defence: "a key id is used once", file: "sdk/tenantdb/cell/key.go", from: "if tag.RowsAffected() == 0 {",
			to:    "if tag.RowsAffected() < 0 {",
			tests: "TestInstallKey"},
		{defence: "placements only rise", file: "sdk/tenantdb/cell/placement.go", from: "WHERE p.generation < excluded.generation\n",
			to: "WHERE true\n", tests: "TestSetPlacementKeepsTheLatest"},

		{defence: "verifier: signature", file: verifier, from: "if !t.verify(key.cert.PublicKey) {", to: "if false {",
			tests: "TestEveryBitFlipIsRefused"},
		{defence: "verifier: certified keys", file: verifier, from: "if err := key.cert.covers(&e.claims); err != nil {",
			to: "if err := error(nil); err != nil {", tests: "TestCertificateBoundsTokens"},
		{defence: "verifier: expiry", file: verifier, from: "sec >= e.expire, ", to: "", tests: "TestLifeOfAToken"},
		{defence: "verifier: longest life", file: verifier, from: ", life > e.claims.Class.life():", to: ":",
			tests: "TestLongLivedTokensAreRefused"},
		{defence: "verifier: revoked keys", file: "sdk/tenant/context.go", from: " && !e.key.dead.Load()", to: "",
			tests: "TestRevokedKeyAndItsReturn"},
		{defence: "verifier: audience", file: verifier, from: "case !e.claims.Audience.Has(v.audience):", to: "case false:",
			tests: "TestReasonsAndOrder"},
		{defence: "verifier: presenter", file: verifier, from: "case !v.presents(presenter):", to: "case false:",
			tests: "TestPresenterIsAskedOnEveryCall|TestReasonsAndOrder"},
		{defence: "verifier: suspension", file: verifier, from: "case state.State > worst:", to: "case false:",
			tests: "TestSuspensionIsSeenByTheNextCall"},
		{defence: "verifier: generation", file: verifier, from: "	case below:\n		return errStale()\n", to: "", tests: "TestReasonsAndOrder"},
		{defence: "verifier: one encoding", file: "sdk/tenant/codec.go", from: "if string(appendPayload(buf[:0], c)) != p {",
			to:    "if false && len(buf) > 0 {",
			tests: "TestOnlyOneEncoding"},
		{defence: "one context in a call", file: "sdk/tenant/token.go", from: "	case 1:\n		return values[0], nil\n	default:\n" +
			"		return \"\", errInvalid(errors.New(\"more than one tenant context\"))\n",
			to: "	default:\n		return values[0], nil\n", tests: "TestOneToken"},
		{defence: "cache of tokens: the whole token is the key", file: "sdk/tenant/cache.go", from: " && e.hash == hash && e.token == s",
			to:    " && e.hash == hash",
			tests: "TestCachedEqualsUncached|TestEveryBitFlipIsRefused"},

		{defence: "server: DATA methods are verified", file: server,
			from: "if rule.GetPlane() != apiv1.Plane_PLANE_DATA {\n		return ctx, nil\n	}",
			to:   "if rule.GetPlane() != apiv1.Plane_PLANE_UNSPECIFIED {\n		return ctx, nil\n	}", tests: "TestServerRefusesWhatIsNotAContext"},
		{defence: "server: interceptor of calls", file: server, from: "	if c.err != nil {\n		return nil, c.err\n	}\n	if err := s.examine",
			to: "	if err := s.examine", tests: "TestServerRefusesWhatIsNotAContext"},
		{defence: "server: interceptor of streams", file: server, from: "	if c.err != nil {\n		return c.err\n	}\n	if c.rule.GetPlane()",
			to: "	if c.rule.GetPlane()", tests: "TestServerRefusesWhatIsNotAContext|TestStreams"},
		{defence: "server: scopes", file: server, from: "if scope == 0 || !verified.Scopes().Has(scope) {", to: "if false && scope == 0 {",
			tests: "TestServer"},
		{defence: "server: classes of contexts", file: server, from: "if verified.Class() != want {", to: "if false {",
			tests: "TestServer|TestTransactions"},
		{defence: "server: contexts for one request are spent", file: server, from: "		err = redeemed(ctx)\n", to: "		err = nil\n",
			tests: "TestTransactionsAreRedeemed"},
		{defence: "client: nothing but the own context goes out", file: "sdk/tenantgrpc/client.go", from: "	ctx = strip(ctx)\n", to: "",
			tests: "TestClientForwardsItsOwnTenantOnly"},
		{defence: "client: other planes carry no context", file: "sdk/tenantgrpc/client.go",
			from: "if rule.GetPlane() != apiv1.Plane_PLANE_DATA {\n		return ctx, nil\n	}",
			to:   "if false {\n		return ctx, nil\n	}", tests: "TestClient"},
	}
}
