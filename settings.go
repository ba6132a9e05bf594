package docevents

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
)

var (
	// ErrNotServiceRole means that the key that the app passed to New is a publishable
	// key, or a JWT whose role isn't service_role, such as the anonymous key. With
	// these keys a purge would delete nothing, but report success. New's error matches
	// ErrNotServiceRole with [errors.Is].
	ErrNotServiceRole = errors.New("not a service-role key")

	// ErrNoSettings means that the environment contains neither SUPABASE_URL nor a key,
	// as on a developer's laptop. NewFromEnv's error matches it with [errors.Is]. The
	// program can continue with the nil Client, which records nothing.
	ErrNoSettings = errors.New("no Supabase settings in the environment")
)

// NewFromEnv calls [New] with the URL in SUPABASE_URL and a key from the environment.
// It reads the key from the first of these variables that is set:
//
//   - SUPABASE_SECRET_KEYS: a JSON object of names and keys. NewFromEnv uses the key
//     with the name "default".
//   - SUPABASE_SECRET_KEY
//   - SUPABASE_SERVICE_ROLE_KEY
//   - SUPABASE_SERVICE_KEY
//
// NewFromEnv doesn't read SUPABASE_KEY, which is often the anonymous key. If neither
// the URL nor a key is set, the error matches [ErrNoSettings].
//
// Secret keys come first, because service_role keys stop working at the end of 2026, or
// earlier if the project disables them. https://supabase.com/docs/guides/api/api-keys
func NewFromEnv(opts ...Option) (*Client, error) {
	const keyNames = "SUPABASE_SECRET_KEYS, SUPABASE_SECRET_KEY, SUPABASE_SERVICE_ROLE_KEY or SUPABASE_SERVICE_KEY (SUPABASE_KEY is not read)"
	supabaseURL := os.Getenv("SUPABASE_URL")
	key, err := envKey()
	switch {
	case err != nil:
		return nil, fmt.Errorf("docevents: %w", err)
	case supabaseURL == "" && key == "":
		return nil, fmt.Errorf("docevents: %w: set SUPABASE_URL and %s", ErrNoSettings, keyNames)
	case supabaseURL == "":
		return nil, errors.New("docevents: SUPABASE_URL is not set")
	case key == "":
		return nil, errors.New("docevents: no key is set: set " + keyNames)
	}
	return New(supabaseURL, key, opts...)
}

func envKey() (string, error) {
	list := os.Getenv("SUPABASE_SECRET_KEYS")
	if list == "" {
		return cmp.Or(os.Getenv("SUPABASE_SECRET_KEY"), os.Getenv("SUPABASE_SERVICE_ROLE_KEY"), os.Getenv("SUPABASE_SERVICE_KEY")), nil
	}
	var keys map[string]any
	if json.Unmarshal([]byte(list), &keys) != nil { // its error may repeat a piece of a key
		return "", errors.New(`SUPABASE_SECRET_KEYS is not a JSON object of keys by name, such as {"default":"sb_secret_..."}`)
	}
	key, _ := keys["default"].(string)
	if key == "" {
		return "", errors.New(`SUPABASE_SECRET_KEYS has no key named "default": add it, or pass another key to New`)
	}
	return key, nil
}

// parseURL checks the URL that the app passed to New, and returns the URL of the
// project's REST API. Its errors don't contain the URL that the app passed, which may
// include a password.
func parseURL(raw string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(raw))
	host := raw // a database's URL may include a password that makes the URL unparsable
	if err == nil {
		host = strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	}
	switch {
	case databaseSite.MatchString(host):
		return "", errors.New("the Supabase URL is the database's or its pooler's: pass the project's URL, such as https://abcdefgh.supabase.co, from its API settings")
	case err != nil || host == "" || u.Scheme != "https" && u.Scheme != "http":
		return "", errors.New("the Supabase URL is not valid: pass the project's, such as https://abcdefgh.supabase.co")
	case u.Scheme == "http" && projectSite.MatchString(host):
		return "", errors.New("the Supabase URL begins with http://, which would send the key unencrypted: pass it with https://")
	}
	path, isAPI := strings.CutSuffix(strings.TrimRight(u.Path, "/"), "/rest/v1")
	if supabaseSite.MatchString(host) || !isAPI && studioPath.MatchString(path) {
		return "", errors.New("the Supabase URL is the dashboard's: pass the project's URL, such as https://abcdefgh.supabase.co, from its API settings")
	}
	rest := url.URL{Scheme: u.Scheme, Host: u.Host, Path: path + "/rest/v1"}
	_, err = url.Parse(rest.String()) // the zone of an IPv6 address may not parse again
	if err != nil || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || !pathFormat.MatchString(path) {
		return "", errors.New("the Supabase URL must consist of scheme, host and path, without a user, password, query or fragment")
	}
	return rest.String(), nil
}

// parseURL uses these patterns to reject URLs that users paste by mistake.
var (
	// supabaseSite matches the host of hosted Supabase's dashboard.
	supabaseSite = regexp.MustCompile(`(^|\.)supabase\.(com|io)$`)

	// studioPath matches the URL paths of Studio, the dashboard of a self-hosted
	// project.
	studioPath = regexp.MustCompile(`^(/dashboard)?/project/[^/]+(/|$)|^/dashboard(/|$)`)

	// databaseSite matches the host of a database, such as db.abcdefgh.supabase.co,
	// or of a connection pooler, such as aws-0-eu-central-1.pooler.supabase.com.
	databaseSite = regexp.MustCompile(`(?i)(^|@)db\.[^.]+\.supabase\.(co|in|net|red)\b|\bpooler\.supabase\.(com|co|in)\b`)

	// projectSite matches the host of a hosted project. Its URL must begin with
	// https://.
	projectSite = regexp.MustCompile(`(^|\.)supabase\.(co|in|net|red)$`)
)

// pathFormat matches the part of a URL's path before /rest/v1. The URL of a self-hosted
// project may have such a part.
var pathFormat = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*$`)

// parseKey returns the headers that carry the key, without white space around it.
func parseKey(raw string) (map[string]string, error) {
	key := strings.TrimSpace(raw)
	if key == "" {
		return nil, errors.New("the service-role key is empty: copy it from the project's API settings")
	}
	if strings.Trim(key, "\"'`") != key {
		return nil, errors.New("the service-role key has quotes around it: remove them, as a shell would")
	}
	if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the service-role key contains a space, a control character or a non-ASCII character: copy it again")
	}
	headers := map[string]string{"apikey": key}
	switch role, isJWT := jwtRole(key); {
	case strings.HasPrefix(key, "sb_publishable_"):
		return nil, fmt.Errorf("%w: this is the publishable key; copy the secret key (sb_secret_...)", ErrNotServiceRole)
	case isJWT && role != "service_role":
		return nil, fmt.Errorf("%w: the token's role is %.20q; copy the service_role key", ErrNotServiceRole, role)
	case !strings.HasPrefix(key, "sb_secret_"): // a secret key isn't a JWT, and the API would try to decode it
		headers["Authorization"] = "Bearer " + key
	}
	return headers, nil
}

// jwtRole returns the role claim of a JWT. It doesn't verify the signature.
func jwtRole(key string) (role string, isJWT bool) {
	parts := strings.Split(key, ".")
	if len(parts) != 3 {
		return "", false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	var claims map[string]any
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return "", false
	}
	role, _ = claims["role"].(string)
	return role, true
}
