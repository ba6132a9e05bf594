package main

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/google/uuid"
)

// A document is a file of the folder.
type document struct {
	id   string
	path string // absolute
	name string // relative to the folder
}

// namespace is that of the ids below, drawn once.
var namespace = uuid.MustParse("7d3b1d5c-52a1-4f0e-9d0b-64a6f0b8e2c7")

// documentID returns the id of the file at an absolute path: the same in every
// run, from whichever folder above it the run begins. A path relative to that
// folder would do neither: every README.md would be the same document.
func documentID(path string) string {
	return uuid.NewSHA1(namespace, []byte(filepath.ToSlash(path))).String()
}

// A folder is what walk finds.
type folder struct {
	root       string // absolute, without symbolic links
	documents  []document
	links      int // symbolic links, left out
	others     int // pipes, sockets and devices, left out: reading one may never end
	unreadable []error
}

// walk lists the files below dir in lexical order. It doesn't follow symbolic
// links, which may lead in circles, save for dir itself.
func walk(ctx context.Context, dir string) (folder, error) {
	root, err := filepath.Abs(dir)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return folder{}, err
	}
	f := folder{root: root}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && path == root:
			return err
		case err != nil:
			f.unreadable = append(f.unreadable, err)
		case path == root && !entry.IsDir():
			return fmt.Errorf("%s is not a folder", root)
		case entry.IsDir():
		case entry.Type()&fs.ModeSymlink != 0:
			f.links++
		case !entry.Type().IsRegular():
			f.others++
		default:
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			f.documents = append(f.documents, document{documentID(path), path, name})
		}
		return nil
	})
	return f, err
}
