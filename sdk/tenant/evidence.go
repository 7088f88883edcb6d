package tenant

import "errors"

// EvidenceKey returns the id of the key that a token says it was signed with, so that the key's certificate can be
// looked up for [Evidence]. The error is a fault CONTEXT_INVALID.
func EvidenceKey(token string) (KeyID, error) {
	t, err := parseToken(token)
	if err != nil {
		return KeyID{}, errInvalid(err)
	}
	return t.keyID, nil
}

// Evidence returns what a token said while it was good, whatever the time is: the certificate's key signed it, and was
// allowed to say that. It proves who acted for which tenant once, and opens nothing: only a [Verifier] makes a
// [Context]. Whoever decides by it asks beside it whether the key was revoked, how the tenant stands now, and who
// presents the token.
//
// A key may be certified anew for a later time, so only the end of its time is compared with the token's.
// Errors are faults: CONTEXT_INVALID, or PRESENTER_REFUSED for what the key may not say.
func Evidence(token string, certificate KeyCertificate) (Claims, error) {
	t, err := parseToken(token)
	if err != nil {
		return Claims{}, errInvalid(err)
	}
	if t.keyID != certificate.KeyID || !t.verify(certificate.PublicKey) {
		return Claims{}, errInvalid(errors.New("signature is wrong"))
	}
	var c Claims
	if err := decodePayload(t.payload, &c); err != nil {
		return Claims{}, errInvalid(err)
	}
	if life := c.ExpireTime.Unix() - c.IssueTime.Unix(); life < 1 || life > c.Class.life() {
		return Claims{}, errInvalid(errors.New("it lived too long"))
	}
	if !c.IssueTime.Before(certificate.NotAfter) {
		return Claims{}, errInvalid(errors.New("it was made after its key's time"))
	}
	if err := certificate.covers(&c); err != nil {
		return Claims{}, errRefused(err.Error())
	}
	return c, nil
}
