package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/html/charset"
)

const (
	// maxBytes bounds a document, packed and unpacked: a gzip file of a
	// megabyte may hold a gigabyte.
	maxBytes = 32 << 20

	// pdfTimeout bounds pdftotext, which a broken file may send round in circles.
	pdfTimeout = time.Minute
)

var errTooLong = fmt.Errorf("longer than %d MiB", maxBytes>>20)

// A content is what extract gets out of a file.
type content struct {
	text     string
	title    string // where the format has one of its own
	markdown bool
}

// extract reads the file and returns its text in UTF-8. Its errors don't repeat
// the path, so that those of one kind read the same.
func extract(ctx context.Context, path string) (content, error) {
	data, err := readFile(path)
	if err != nil {
		return content{}, err
	}
	return parse(ctx, strings.ToLower(filepath.Base(path)), data)
}

// parse goes by what the data is, and by the name where that doesn't tell.
func parse(ctx context.Context, name string, data []byte) (_ content, err error) {
	if bytes.HasPrefix(data, []byte("\x1f\x8b")) {
		if data, err = gunzip(data); err != nil {
			return content{}, err
		}
		name = strings.TrimSuffix(name, ".gz")
	}
	mime := http.DetectContentType(data)
	switch {
	case bytes.HasPrefix(data, []byte("%PDF-")):
		text, err := pdfText(ctx, data)
		return content{text: text}, err
	case !strings.HasPrefix(mime, "text/"):
		return content{}, fmt.Errorf("not a text document: %s", mime)
	}
	switch filepath.Ext(name) {
	case ".html", ".htm", ".xhtml":
		return htmlContent(data)
	case ".md", ".markdown":
		text, err := plainText(data)
		return content{text: text, markdown: true}, err
	case "": // a README, say, but the web has pages without a suffix
		if strings.HasPrefix(mime, "text/html") {
			return htmlContent(data)
		}
	}
	text, err := plainText(data)
	return content{text: text}, err
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err == nil {
		defer file.Close()
		var data []byte
		if data, err = readAll(file); err == nil {
			return data, nil
		}
	}
	if withPath := (*fs.PathError)(nil); errors.As(err, &withPath) {
		return nil, fmt.Errorf("%s: %w", withPath.Op, withPath.Err)
	}
	return nil, err
}

// readAll is io.ReadAll for up to maxBytes.
func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err == nil && len(data) > maxBytes {
		err = errTooLong
	}
	return data, err
}

func gunzip(data []byte) ([]byte, error) {
	unpacker, err := gzip.NewReader(bytes.NewReader(data))
	if err == nil {
		data, err = readAll(unpacker)
	}
	if err != nil && !strings.HasPrefix(err.Error(), "gzip: ") {
		err = fmt.Errorf("gzip: %w", err) // some of its errors say so, some don't
	}
	return data, err
}

// plainText returns data in UTF-8: as it is where it is that, else by its byte
// order mark, else as Windows-1252, which browsers take for Latin-1 too.
func plainText(data []byte) (string, error) {
	encoding, name, certain := charset.DetermineEncoding(data, "text/plain")
	switch {
	case utf8.Valid(data):
		return withoutMark(data), withoutNUL(data)
	case !certain: // the first kilobyte is all that it looks at
		if err := withoutNUL(data); err != nil {
			return "", err
		}
		encoding, name = charset.Lookup("windows-1252")
	}
	text, err := encoding.NewDecoder().Bytes(data)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return withoutMark(text), nil
}

func withoutMark(text []byte) string { return strings.TrimPrefix(string(text), "\uFEFF") }

func withoutNUL(data []byte) error {
	if bytes.IndexByte(data, 0) >= 0 {
		return errors.New("not a text document: it has NUL bytes")
	}
	return nil
}

func pdfText(ctx context.Context, data []byte) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, pdfTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "pdftotext", "-enc", "UTF-8", "-", "-")
	cmd.WaitDelay = time.Second // a child of its own may hold on to the output
	cmd.Stdin = bytes.NewReader(data)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	output, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			err = errors.New("not installed (it is in poppler-utils)")
		}
		return "", fmt.Errorf("pdftotext: %w", err)
	}
	text, err := readAll(output)
	if err != nil {
		cancel() // it still writes
	}
	waitErr := cmd.Wait()
	switch {
	case errors.Is(err, errTooLong):
		return "", fmt.Errorf("pdftotext: %w", err)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "", fmt.Errorf("pdftotext: took longer than %s", pdfTimeout)
	case ctx.Err() != nil:
		return "", ctx.Err()
	case waitErr != nil:
		line, _, _ := strings.Cut(strings.TrimSpace(complaint.String()), "\n")
		if line == "" {
			return "", fmt.Errorf("pdftotext: %w", waitErr)
		}
		return "", fmt.Errorf("pdftotext: %s (%w)", line, waitErr)
	}
	return string(text), nil
}
