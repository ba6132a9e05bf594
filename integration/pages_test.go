package integration_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/docevents/docevents-go"
)

// sources returns the Go code of a folder, either of its tests or of its other files.
func sources(t *testing.T, folder string, tests bool) (code string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") == tests {
			code += read(t, file)
		}
	}
	return code
}

// allTests returns the code of all tests of the repository.
func allTests(t *testing.T) (code string) {
	t.Helper()
	for _, folder := range []string{"..", "../internal/*", ".", "*", "../examples/*", "../cmd/*", "../dashboard", "../doceventstest"} {
		code += sources(t, folder, true)
	}
	return code
}

// TestNothingIsMissing checks that the pages document every option, setting, log
// line and drop reason of the code.
func TestNothingIsMissing(t *testing.T) {
	library := sources(t, "..", false)
	for name, c := range map[string]struct {
		find  string
		page  string
		least int
	}{
		"options":      {`(?m)^func (With\w+)\(`, "docs/options.md", 14},
		"settings":     {`Getenv\("(\w+)"\)`, "docs/options.md", 5},
		"lines logged": {`(?m)^\t(?:log\w+ += |\w+: +)"(docevents: [^"]+)",?$`, "docs/observability.md", 12},
		"drops":        {`(?m)^\t(\w+) +DropReason = `, "README.md", 5},
	} {
		found := regexp.MustCompile(c.find).FindAllStringSubmatch(library, -1)
		if len(found) < c.least {
			t.Errorf("%s: found only %q", name, found)
		}
		page := read(t, filepath.Join("..", c.page))
		for _, what := range found {
			if !strings.Contains(page, what[1]) {
				t.Errorf("%s lacks %s, one of the %s", c.page, what[1], name)
			}
		}
	}
	if size := len(read(t, "../README.md")); size > 8500 {
		t.Errorf("README.md has %d bytes, and the limit is 8,500: move text to docs/", size)
	}
}

var (
	testName = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)\\w+)`")
	fileName = regexp.MustCompile("`([\\w/]+\\.(?:go|sql))`")
)

// TestColumnsOfThePage checks that docs/your-table.md lists each field of Columns, and the
// default name of its column.
func TestColumnsOfThePage(t *testing.T) {
	client, err := docevents.New("https://example.supabase.co", "sb_secret_x")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(t.Context())
	_, section, _ := strings.Cut(read(t, "../docs/your-table.md"), "\n## Names of columns\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for field, value := range reflect.ValueOf(client.Columns()).Fields() {
		want := []string{field.Name}
		if value.Kind() == reflect.String {
			want = append(want, value.String())
		}
		for _, name := range want {
			if !regexp.MustCompile("`" + name + "\\b").MatchString(section) {
				t.Errorf("docs/your-table.md doesn't name %s", name)
			}
		}
	}
}

// TestDesign checks that the files and tests that docs/design.md names exist, and
// that it names every file of the library.
func TestDesign(t *testing.T) {
	page := read(t, "../docs/design.md")
	tests := allTests(t)
	cited := testName.FindAllStringSubmatch(page, -1)
	if len(cited) < 20 {
		t.Errorf("the invariants name only %q", cited)
	}
	for _, name := range cited {
		if !strings.Contains(tests, "\nfunc "+name[1]+"(") {
			t.Errorf("docs/design.md names %s, which does not exist", name[1])
		}
	}

	var files []string
	for _, pattern := range []string{"../*.go", "../internal/*/*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatal(pattern, found, err)
		}
		files = append(files, found...)
	}
	for _, file := range files {
		if name := filepath.Base(file); !strings.HasSuffix(name, "_test.go") && !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/design.md doesn't name %s", strings.TrimPrefix(file, "../"))
		}
	}
	for _, name := range fileName.FindAllStringSubmatch(page, -1) {
		_, err := os.Stat(filepath.Join("..", name[1]))
		if err != nil && !slices.ContainsFunc(files, func(file string) bool { return filepath.Base(file) == name[1] }) {
			t.Errorf("docs/design.md names %s, which does not exist", name[1])
		}
	}
}

var (
	goCommand = regexp.MustCompile(`\bgo (run|test|build) (?:-\S+ )*(?:-o \S+ )?(\./[\w./-]+)((?: -\w+| [\w.]+)*)`)
	goFlag    = regexp.MustCompile(` -(\w+)`)
	bench     = regexp.MustCompile(`(?m)^go test (.*)-bench '?([^' ]+)'?.*$`)
	benchmark = regexp.MustCompile(`(?m)^func (Benchmark\w+)`)
)

// TestCommands checks that every program that a page names exists, with its flags
// and a test, and that every benchmark exists.
func TestCommands(t *testing.T) {
	for _, page := range pages(t) {
		text := read(t, page)
		for _, command := range goCommand.FindAllStringSubmatch(text, -1) {
			folder := filepath.Join("..", strings.TrimSuffix(command[2], "/..."))
			if _, err := os.Stat(folder); err != nil {
				t.Errorf("%s: %s: %v", page, command[0], err)
			}
			if command[1] != "run" {
				continue
			}
			if sources(t, folder, true) == "" {
				t.Errorf("%s: %s has no test", page, command[0])
			}
			for _, name := range goFlag.FindAllStringSubmatch(command[3], -1) {
				if !strings.Contains(sources(t, folder, false), `"`+name[1]+`", `) {
					t.Errorf("%s: %s: no flag -%s", page, command[0], name[1])
				}
			}
		}
		for _, command := range bench.FindAllStringSubmatch(text, -1) {
			folder := ".."
			if first, _, _ := strings.Cut(command[1], " "); strings.HasPrefix(first, "./") {
				folder = filepath.Join("..", first)
			}
			found := false
			for _, name := range benchmark.FindAllStringSubmatch(sources(t, folder, true), -1) {
				found = found || regexp.MustCompile(command[2]).MatchString(name[1])
			}
			if !found {
				t.Errorf("%s: no benchmark for %s", page, command[0])
			}
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	fence   = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noSlug  = regexp.MustCompile(`[^\pL\pN _-]`)
)

// slugs returns the anchors that GitHub gives a page's headings.
func slugs(text string) (found []string) {
	for _, h := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		found = append(found, strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
	}
	return found
}

// TestLinks checks that the files and sections that the pages link to exist, and
// that some page links to each file of docs/.
func TestLinks(t *testing.T) {
	linked := map[string]bool{}
	for _, page := range pages(t) {
		for _, match := range link.FindAllStringSubmatch(fence.ReplaceAllString(read(t, page), ""), -1) {
			target := page
			if match[1] != "" {
				target = filepath.Join(filepath.Dir(page), match[1])
			}
			linked[target] = true
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s has a broken link: %v", page, err)
			} else if match[2] != "" && !slices.Contains(slugs(read(t, target)), match[2]) {
				t.Errorf("%s links to %s, which has no section %q", page, target, match[2])
			}
		}
	}
	docs, err := filepath.Glob("../docs/*")
	if err != nil || len(docs) == 0 {
		t.Fatal(docs, err)
	}
	for _, file := range docs {
		if !linked[file] {
			t.Errorf("no page links to %s", file)
		}
	}
}
