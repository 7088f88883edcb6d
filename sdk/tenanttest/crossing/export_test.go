package crossing

// Guarded is guarded, for tests.
var Guarded = guarded
