// Package examples_test checks that each example can be copied alone.
package examples_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// onTheStack lists the examples that start the local stack, so they need a clone of
// the repository.
var onTheStack = []string{"quickstart", "localstack"}

// programs returns the folders that contain a program.
func programs(t *testing.T) (folders []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == "main.go" {
			folders = append(folders, filepath.Dir(path))
		}
		return err
	})
	if err != nil || len(folders) < 8 {
		t.Fatalf("%v: %v", folders, err)
	}
	return folders
}

// TestCopiedAlone checks that each program builds if it is copied alone into another
// module. That module has the library, and the other packages in the versions of
// examples/go.mod. So a program can't import anything else of the repository.
func TestCopiedAlone(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range programs(t) {
		if slices.Contains(onTheStack, folder) {
			continue
		}
		t.Run(folder, func(t *testing.T) {
			dir := t.TempDir()
			files, err := filepath.Glob(filepath.Join(folder, "*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range append(files, "go.mod", "go.sum") {
				if strings.HasSuffix(file, "_test.go") {
					continue
				}
				if info, err := os.Stat(file); err != nil || info.IsDir() {
					continue
				}
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			const library = "github.com/docevents/docevents-go"
			command(t, dir, "mod", "edit", "-module=example.com/app", "-replace="+library+"="+root,
				"-droprequire="+library+"/integration", "-dropreplace="+library+"/integration")
			command(t, dir, "build", "-o", os.DevNull, ".")
		})
	}
}

// command runs the go command without network access.
func command(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "GOPROXY=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
