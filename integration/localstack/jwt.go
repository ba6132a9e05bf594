package localstack

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// token returns a key in the form of Supabase's legacy keys: a JWT that names a role.
func token(secret, role string) (string, error) {
	now := time.Now()
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss":  "supabase-local",
		"role": role,
		"iat":  now.Unix(),
		"exp":  now.AddDate(10, 0, 0).Unix(),
	}).SignedString([]byte(secret))
}

// caller is the role and the claims of a request.
type caller struct {
	role   string
	claims []byte // as JSON
}

const anonRole = "anon"

func (c caller) anonymous() bool { return c.role == anonRole }

// verify checks the JWT in the Authorization header, and returns the caller. The JWT
// must be signed with jwtSecret. If there is no Bearer token, or no role in the JWT,
// the role is anon, as in PostgREST.
func verify(jwtSecret, authorization string) (caller, *postgrest.Error) {
	claims := jwt.MapClaims{}
	scheme, text, _ := strings.Cut(authorization, " ")
	if strings.EqualFold(scheme, "Bearer") {
		text = strings.TrimSpace(text)
		if text == "" {
			return caller{}, decodeError("Empty JWT is sent in Authorization header")
		}
		if parts := strings.Count(text, ".") + 1; parts != 3 {
			return caller{}, decodeError(fmt.Sprintf("Expected 3 parts in JWT; got %d", parts))
		}
		_, err := jwt.ParseWithClaims(text, claims, func(*jwt.Token) (any, error) { return []byte(jwtSecret), nil },
			jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
			jwt.WithIssuedAt(),
			jwt.WithLeeway(30*time.Second), // as in PostgREST
		)
		if err != nil {
			return caller{}, tokenError(err)
		}
	}
	role, ok := claims["role"].(string)
	if !ok {
		role = anonRole
	}
	claims["role"] = role
	return caller{role, postgrest.EncodeJSON(claims)}, nil
}

func tokenError(err error) *postgrest.Error {
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return claimsError("JWT expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return claimsError("JWT not yet valid")
	case errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return claimsError("JWT issued at future")
	case errors.Is(err, jwt.ErrTokenInvalidClaims):
		return claimsError("Parsing claims failed")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return decodeError("No suitable key or wrong key type").
			WithDetails("None of the keys was able to decode the JWT")
	}
	return decodeError("JWT couldn't be decoded")
}

func decodeError(message string) *postgrest.Error { return invalidToken("PGRST301", message) }
func claimsError(message string) *postgrest.Error { return invalidToken("PGRST303", message) }

func invalidToken(code, message string) *postgrest.Error {
	return postgrest.Errorf(401, code, "%s", message).
		WithHeader("Www-Authenticate", fmt.Sprintf("Bearer error=%q, error_description=%q", "invalid_token", message))
}
