package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/docevents/docevents-go/doceventstest"
)

func TestWalk(t *testing.T) {
	folder := t.TempDir()
	want := map[string]string{ // by document
		"good.txt":  "[processing_started processing_started extract completed extract processing_started count completed count completed]",
		"empty.txt": "[processing_started processing_started extract completed extract processing_started count failed count failed]",
		"image.png": "[processing_started processing_started extract failed extract failed]",
	}
	for name, text := range map[string]string{"good.txt": "three short words", "empty.txt": "", "image.png": "\x89PNG"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := doceventstest.NewServer(t)
	client := server.Client()
	if err := walk(client, folder); err != nil {
		t.Fatal(err)
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	histories := map[string][]any{}
	for _, e := range server.Events() {
		histories[e.DocumentID] = append(histories[e.DocumentID], e.Type)
		if e.Stage != "" {
			histories[e.DocumentID] = append(histories[e.DocumentID], e.Stage)
		}
	}
	for name, events := range want {
		if got := fmt.Sprint(histories[documentID(filepath.Join(folder, name))]); got != events {
			t.Errorf("%s: %s\nwant %s", name, got, events)
		}
	}
	if err := walk(client, filepath.Join(folder, "missing")); err == nil {
		t.Error("walk returned no error for a missing folder")
	}
}
