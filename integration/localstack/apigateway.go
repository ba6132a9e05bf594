package localstack

import (
	"net/http"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// apiGateway does the work of Supabase's API gateway: it maps /rest/v1/ to /, checks
// the apikey header, and passes the request to PostgREST or its stand-in.
//
// As on Supabase, it rejects an unknown key before PostgREST sees the request. If
// there is no Authorization header, it sends the key as the token. A key of the new
// style (sb_secret_...) isn't a JWT. postgrest-go and supabase-js copy such a key to
// Authorization, and PostgREST rejects it there.
//
// Unlike Supabase, it accepts every key that is signed with the JWT secret. It also
// accepts requests without a key, which run as the anonymous role.
type apiGateway struct {
	settings Settings
	rest     http.Handler // PostgREST or its stand-in
}

const restPrefix = "/rest/v1"

func (g *apiGateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
	inner := *r // a handler must not modify the request
	inner.Header = r.Header.Clone()
	inner.Header.Del("Apikey")
	if key != "" && r.Header.Get("Authorization") == "" {
		inner.Header.Set("Authorization", "Bearer "+key)
	}
	http.StripPrefix(restPrefix, g.rest).ServeHTTP(w, &inner)
}

// known reports whether the key is the secret key or signed with the JWT secret. It
// doesn't check the expiry; PostgREST does.
func (g *apiGateway) known(key string) bool {
	if key == g.settings.SecretKey {
		return true
	}
	parser := jwt.NewParser(jwt.WithoutClaimsValidation(), jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}))
	_, err := parser.Parse(key, func(*jwt.Token) (any, error) { return []byte(g.settings.JWTSecret), nil })
	return err == nil
}
