package localstack

import (
	"net/http"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// gate stands where Supabase's own gateway does, in front of our gateway or of
// a real PostgREST: it maps /rest/v1/ to /, and looks at the apikey header.
//
// As on Supabase, a key that isn't a known one is refused here, before
// PostgREST sees the request, and a key stands in for a missing Authorization.
// The new style of keys are no JWTs: one in Authorization, where postgrest-go
// and supabase-js copy it by themselves, is refused by PostgREST.
//
// Unlike Supabase it takes any key that the JWT secret has signed, and no key
// at all, which is the anonymous role.
type gate struct {
	settings Settings
	rest     http.Handler
}

const restPrefix = "/rest/v1"

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), restPrefix)
	if !ok || path != "" && path[0] != '/' {
		postgrest.WriteJSON(w, http.StatusNotFound, []byte(`{"message":"no Route matched with those values"}`))
		return
	}
	key := r.Header.Get("Apikey")
	if key != "" && !g.known(key) {
		postgrest.WriteJSON(w, http.StatusUnauthorized,
			[]byte("{\"message\":\"Invalid API key\",\"hint\":\"Double check your Supabase `anon` or `service_role` API key.\"}"))
		return
	}
	if key == g.settings.SecretKey {
		key = g.settings.ServiceRoleKey
	}
	inner := *r // a handler may not change the request
	inner.Header = r.Header.Clone()
	inner.Header.Del("Apikey")
	if key != "" && r.Header.Get("Authorization") == "" {
		inner.Header.Set("Authorization", "Bearer "+key)
	}
	http.StripPrefix(restPrefix, g.rest).ServeHTTP(w, &inner)
}

// known reports whether the key is one of the stack's. Whether it has expired
// is for PostgREST to say.
func (g *gate) known(key string) bool {
	if key == g.settings.SecretKey {
		return true
	}
	parser := jwt.NewParser(jwt.WithoutClaimsValidation(), jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}))
	_, err := parser.Parse(key, func(*jwt.Token) (any, error) { return []byte(g.settings.JWTSecret), nil })
	return err == nil
}
