package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// An id that has changed would tear a document's events apart.
func TestDocumentID(t *testing.T) {
	const want = "cd2e0e0c-b3f6-50a3-be3b-f3af217ff70f"
	got := documentID("/docs/README.md")
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if id, err := uuid.Parse(got); err != nil || id.Version() != 5 {
		t.Errorf("%s is no UUID of version 5: %v", got, err)
	}
	if documentID("/docs/readme.md") == got || documentID("/other/README.md") == got {
		t.Error("another file has the same id")
	}
}

// tree makes these files, each with its name in it.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir()) // on macOS it is behind one
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func names(f folder) []string {
	var list []string
	for _, d := range f.documents {
		list = append(list, filepath.ToSlash(d.name))
	}
	return list
}

func TestWalk(t *testing.T) {
	root := tree(t, "b.txt", "a/z.txt", "a/deep/er.md", ".hidden/note")
	f, err := walk(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(f), []string{".hidden/note", "a/deep/er.md", "a/z.txt", "b.txt"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if f.root != root || f.links != 0 || f.others != 0 || f.unreadable != nil {
		t.Errorf("got %+v", f)
	}
}

// A file is the same document from wherever the run begins.
func TestWalkFindsTheSameIDs(t *testing.T) {
	root := tree(t, "a/z.txt", "b.txt")
	if err := os.Symlink(root, filepath.Join(t.TempDir(), "link")); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	ids := func(dir string) map[string]string {
		f, err := walk(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		byPath := make(map[string]string)
		for _, d := range f.documents {
			byPath[d.path] = d.id
		}
		return byPath
	}
	whole, again, linked, below := ids(root), ids(root+"/./"), ids(link), ids(filepath.Join(root, "a"))
	t.Chdir(root)
	relative := ids(".")
	for path, id := range whole {
		if again[path] != id || linked[path] != id || relative[path] != id {
			t.Errorf("%s: %s, %s, %s and %s", path, id, again[path], linked[path], relative[path])
		}
	}
	if path := filepath.Join(root, "a", "z.txt"); len(below) != 1 || below[path] != whole[path] {
		t.Errorf("from below: %v", below)
	}
}

func TestWalkLeavesOut(t *testing.T) {
	root := tree(t, "a.txt")
	for _, link := range []struct{ to, from string }{
		{root, "circle"}, {"a.txt", "b.txt"}, {"nowhere", "dangling"},
	} {
		if err := os.Symlink(link.to, filepath.Join(root, link.from)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(root) // a socket's path must be short
	listener, err := net.Listen("unix", "socket")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	f, err := walk(t.Context(), ".")
	if got := names(f); !slices.Equal(got, []string{"a.txt"}) || f.links != 3 || f.others != 1 || err != nil {
		t.Errorf("got %q, %d links, %d others, %v", got, f.links, f.others, err)
	}
}

func TestWalkUnreadableFolder(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	root := tree(t, "a.txt", "secret/b.txt")
	secret := filepath.Join(root, "secret")
	if err := os.Chmod(secret, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(secret, 0o700) })
	f, err := walk(t.Context(), root)
	if got := names(f); !slices.Equal(got, []string{"a.txt"}) || len(f.unreadable) != 1 || err != nil {
		t.Errorf("got %q, %v, %v", got, f.unreadable, err)
	}
}

func TestWalkFailures(t *testing.T) {
	root := tree(t, "a.txt")
	if _, err := walk(t.Context(), filepath.Join(root, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := walk(t.Context(), filepath.Join(root, "a.txt")); err == nil || !strings.Contains(err.Error(), "not a folder") {
		t.Errorf("a file: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := walk(ended, root); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
