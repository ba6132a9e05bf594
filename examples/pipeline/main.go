// Pipeline processes each file of a folder in two steps: it extracts the text and
// counts the words.
//
//	go run ./examples/pipeline docs
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: pipeline FOLDER")
	}
	client, err := docevents.NewFromEnv()
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := client.Check(ctx); err != nil { // the error says what to fix
		log.Fatal(err)
	}
	err = walk(client, os.Args[1])
	if err := errors.Join(err, client.Close(ctx)); err != nil {
		log.Fatal(err)
	}
	stats := client.Stats()
	fmt.Printf("stored %d of %d events\n", stats.Delivered, stats.Recorded)
}

// walk processes each file in folder and its subfolders as a document. If a document
// fails, walk goes on with the next one.
func walk(client *docevents.Client, folder string) error {
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			words, err := process(client, path)
			fmt.Println(path, words, err)
		}
		return err
	})
}

// process extracts the text of a file and counts its words. The inner calls to Step
// record events about the steps "extract" and "count". The outer call has no Stage, so
// its events are about the whole document. If a step fails, the document fails as well.
func process(client *docevents.Client, path string) (words int, err error) {
	e := docevents.Event{DocumentID: documentID(path), UserID: docevents.SystemUser}
	err = client.Step(e, func() error {
		var text []byte
		e.Stage = "extract"
		err := client.Step(e, func() (err error) {
			text, err = extract(path)
			return err
		})
		if err != nil {
			return err
		}
		e.Stage = "count"
		return client.Step(e, func() (err error) {
			words, err = count(text)
			return err
		})
	})
	return words, err
}

// documentID returns a file's id, which is the same in each run.
func documentID(path string) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("file:"+path)).String()
}

// The functions extract and count stand in for your app's work.
func extract(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err == nil && !utf8.Valid(text) {
		err = errors.New("the document is not text")
	}
	return text, err
}

func count(text []byte) (words int, err error) {
	if words = len(bytes.Fields(text)); words == 0 {
		err = errors.New("the document is empty")
	}
	return words, err
}
