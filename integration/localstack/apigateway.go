package localstack

import (
	"net/http"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// apiGateway does the work of Supabase's API gateway: it rejects unknown API keys,
// removes /rest/v1 from the path, and passes the request to the backend.
//
// If a request has an API key but no Authorization header, apiGateway adds this header
// with the API key, which is a JWT. The secret key (sb_secret_...) isn't a JWT, so the
// service_role key takes its place. apiGateway never changes an existing Authorization
// header. So if a client puts the secret key there, as postgrest-go and supabase-js do,
// PostgREST rejects the request.
//
// Unlike Supabase, apiGateway accepts every key that is signed with the JWT secret. It
// also accepts requests without a key, which run as the role anon.
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

// known reports whether the API key is the secret key, or a JWT that is signed with the
// JWT secret. An expired JWT counts as known, because the backend rejects it.
func (g *apiGateway) known(key string) bool {
	if key == g.settings.SecretKey {
		return true
	}
	parser := jwt.NewParser(jwt.WithoutClaimsValidation(), jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}))
	_, err := parser.Parse(key, func(*jwt.Token) (any, error) { return []byte(g.settings.JWTSecret), nil })
	return err == nil
}
