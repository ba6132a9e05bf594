package integration_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sources is the Go code of a folder's files.
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

// What the code has, the pages tell of.
func TestNothingIsMissing(t *testing.T) {
	library := sources(t, "..", false)
	for name, c := range map[string]struct {
		find  string
		page  string
		least int
	}{
		"options":      {`(?m)^func (With\w+)\(`, "README.md", 14},
		"settings":     {`Getenv\("(\w+)"\)`, "README.md", 5},
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
				t.Errorf("%s doesn't tell of %s, of the %s", c.page, what[1], name)
			}
		}
	}
	if size := len(read(t, "../README.md")); size > 9<<10 {
		t.Errorf("README.md is %d bytes: what is more than 9 KiB belongs in docs/", size)
	}
}

// The states of the diagram are those of the code.
func TestDiagram(t *testing.T) {
	code := strings.ToLower(read(t, "../queue.go") + read(t, "../delivery.go"))
	states := regexp.MustCompile(`(?m)^ +(\S+) --> (\w+|\[\*\])`).FindAllStringSubmatch(read(t, "../docs/delivery.md"), -1)
	if len(states) < 10 {
		t.Fatalf("found %q", states)
	}
	for _, state := range states {
		for _, name := range state[1:] {
			if name != "[*]" && !regexp.MustCompile(`\b`+strings.ToLower(name)+`\b`).MatchString(code) {
				t.Errorf("the code knows no %q", name)
			}
		}
	}
}

var (
	goCommand = regexp.MustCompile(`\bgo (run|test|build) (?:-\S+ )*(?:-o \S+ )?(\./[\w./-]+)((?: -\w+| [\w.]+)*)`)
	goFlag    = regexp.MustCompile(` -(\w+)`)
	bench     = regexp.MustCompile(`(?m)^go test (.*)-bench '?([^' ]+)'?.*$`)
	benchmark = regexp.MustCompile(`(?m)^func (Benchmark\w+)`)
)

// Every program that a page names is there, with the flags that are given and a
// test that runs it, and so is every benchmark.
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

// slugs are the anchors that GitHub gives a page's headings.
func slugs(text string) (found []string) {
	for _, h := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		found = append(found, strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
	}
	return found
}

// Every file and every section that a page links to is there, and nobody links
// to nothing: every page of docs/ is linked to.
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
				t.Errorf("%s links to what isn't there: %v", page, err)
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
			t.Errorf("nobody links to %s", file)
		}
	}
}
