package ofrep_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// BenchmarkBulk compares the answer for a hundred flags with the one that says that they are unchanged.
func BenchmarkBulk(b *testing.B) {
	s := newSite(b)
	var flags []string
	for i := range 100 {
		flags = append(flags, fmt.Sprintf(`"flag-%03d":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off",
			"targeting":{"if":[{"in":[{"var":"email"},["a@example.com","b@example.com"]]},"on"]}}`, i))
	}
	s.SetPlatform(`{"flags":{` + strings.Join(flags, ",") + `}}`)
	body := `{"context":{"targetingKey":"user-1","email":"c@example.com","level":"high"}}`
	tag := s.send(ask{body: body}).Header().Get("ETag")
	for _, given := range []string{"", tag} {
		want := http.StatusOK
		if given != "" {
			want = http.StatusNotModified
		}
		handler, ctx := newHandler(s), s.In(b.Context(), "acme")
		b.Run(strconv.Itoa(want), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequestWithContext(ctx, http.MethodPost, "https://acme.example/ofrep/v1/evaluate/flags", strings.NewReader(body))
				r.Header.Set("Authorization", "Bearer "+s.key)
				if given != "" {
					r.Header.Set("If-None-Match", given)
				}
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r)
				if w.Code != want {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
