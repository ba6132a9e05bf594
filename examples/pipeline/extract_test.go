package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func packed(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// file makes a file of a test's own.
func file(t testing.TB, name, data string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const htmlPage = `<!DOCTYPE html><html><head><title>Two
 &amp; a half</title><style>p { color: red }</style><script>if (a < b) word()</script></head>
<body><h1>Heading</h1><p>An <b>emp</b>hasis, <a href="x">li</a>nked.<table><td>one<td>two</table><br/>end
<svg><title>drawing</title></svg></body></html>`

func TestExtract(t *testing.T) {
	for _, test := range []struct {
		name, data string
		want       content
	}{
		{"notes.txt", "First line.\nSecond line.\n", content{text: "First line.\nSecond line.\n"}},
		{"README", "No suffix.", content{text: "No suffix."}},
		{"mark.txt", "\xef\xbb\xbfWith a mark", content{text: "With a mark"}},
		{"utf-16.txt", "\xff\xfeG\x00r\x00\xfc\x00n\x00", content{text: "Grün"}},
		{"latin-1.txt", "Gr\xfcn und bl\xe4ulich", content{text: "Grün und bläulich"}},
		{"euro.txt", strings.Repeat("a", 2000) + " \x80 5", content{text: strings.Repeat("a", 2000) + " € 5"}},
		{"readme.md", "# Title\n", content{text: "# Title\n", markdown: true}},
		{"README.Markdown", "# Title\n", content{text: "# Title\n", markdown: true}},
		{"changes.txt.gz", packed(t, "Packed."), content{text: "Packed."}},
		{"two-members.gz", packed(t, "Packed ") + packed(t, "twice."), content{text: "Packed twice."}},
		{"really-packed.txt", packed(t, "Not named so."), content{text: "Not named so."}},
		{"readme.md.gz", packed(t, "# Title\n"), content{text: "# Title\n", markdown: true}},
		{"empty.txt", "", content{}},
		{"empty.html", "", content{}},
		{"latin.html", `<meta charset="iso-8859-1"><title>Gr` + "\xfcn</title>", content{title: "Grün"}},
		{"russian.html", `<meta charset="windows-1251"><p>` + "\xcc\xe8\xf0", content{text: "Мир"}},
		{"japanese.htm", `<meta charset="Shift_JIS"><p>` + "\x93\xfa\x96\x7b", content{text: "日本"}},
		{"utf-8.html", `<title>日本</title>Grün`, content{title: "日本", text: "Grün"}},
		{"nosuffix", "<!DOCTYPE html><title>A page</title><p>text", content{title: "A page", text: "text"}},
		{"comment.txt", "<!-- no page -->", content{text: "<!-- no page -->"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := extract(t.Context(), file(t, test.name, test.data))
			if strings.Contains(test.name, "htm") || test.name == "nosuffix" {
				got.text = oneLine(got.text)
			}
			if got != test.want || err != nil {
				t.Errorf("got %+v, %v, want %+v", got, err, test.want)
			}
		})
	}
}

func TestExtractHTML(t *testing.T) {
	for _, name := range []string{"page.html", "page.html.gz"} {
		data := htmlPage
		if strings.HasSuffix(name, ".gz") {
			data = packed(t, data)
		}
		got, err := extract(t.Context(), file(t, name, data))
		want := content{title: "Two & a half", text: "Heading An emphasis, linked. one two end drawing"}
		if got.text = oneLine(got.text); got != want || err != nil {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
}

func TestExtractFailures(t *testing.T) {
	whole := packed(t, strings.Repeat("a long text that is cut short ", 100))
	damaged := []byte(whole)
	damaged[len(damaged)-5] ^= 0xff // in the checksum
	for _, test := range []struct{ name, data, want string }{
		{"cut.gz", whole[:len(whole)-20], "gzip: unexpected EOF"},
		{"head.gz", "\x1f\x8b", "gzip: unexpected EOF"},
		{"checksum.gz", string(damaged), "gzip: invalid checksum"},
		{"trailing.gz", whole + "and then no gzip", "gzip: invalid header"},
		{"program", "\x7fELF\x02\x01\x01\x00\x00\x00", "not a text document: application/octet-stream"},
		{"picture.png", "\x89PNG\x0d\x0a\x1a\x0a", "not a text document: image/png"},
		{"picture.txt", "\x89PNG\x0d\x0a\x1a\x0a", "not a text document: image/png"},
		{"late.txt", strings.Repeat("text ", 1000) + "\x00\x01", "not a text document: it has NUL bytes"},
		{"late-latin.txt", strings.Repeat("text \xfc", 1000) + "\x00\x01", "not a text document: it has NUL bytes"},
		{"twice.gz.gz", packed(t, packed(t, "text")), "not a text document: application/x-gzip"},
		{"bomb.gz", packed(t, strings.Repeat("a ", maxBytes/2+1)), "gzip: longer than 32 MiB"},
		{"long.txt", strings.Repeat("a ", maxBytes/2+1), "longer than 32 MiB"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := file(t, test.name, test.data)
			_, err := extract(t.Context(), path)
			if err == nil || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestExtractUnreadable(t *testing.T) {
	path := file(t, "secret.txt", "text")
	for _, test := range []struct {
		name, path string
		is         error
		want       string
	}{
		{"missing", filepath.Join(filepath.Dir(path), "missing.txt"), os.ErrNotExist, "open: no such file or directory"},
		{"forbidden", path, os.ErrPermission, "open: permission denied"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if errors.Is(test.is, os.ErrPermission) {
				if os.Geteuid() == 0 {
					t.Skip("root may read everything")
				}
				if err := os.Chmod(path, 0); err != nil {
					t.Fatal(err)
				}
			}
			_, err := extract(t.Context(), test.path)
			if !errors.Is(err, test.is) || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// onePage is the least that is a PDF file, but for the table of its offsets,
// which readers make anew where it is missing.
const onePage = `%PDF-1.4
1 0 obj <</Type /Catalog /Pages 2 0 R>> endobj
2 0 obj <</Type /Pages /Kids [3 0 R] /Count 1>> endobj
3 0 obj <</Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R
 /Resources <</Font <</F 5 0 R>>>>>> endobj
4 0 obj <</Length 44>> stream
BT /F 12 Tf 20 100 Td (Portable words) Tj ET
endstream endobj
5 0 obj <</Type /Font /Subtype /Type1 /BaseFont /Helvetica>> endobj
trailer <</Root 1 0 R>>
`

func TestExtractPDF(t *testing.T) {
	if _, err := exec.LookPath("pdftotext"); err != nil {
		t.Skip("pdftotext, of poppler-utils, is not installed")
	}
	for name, data := range map[string]string{"page.pdf": onePage, "page.pdf.gz": packed(t, onePage)} {
		got, err := extract(t.Context(), file(t, name, data))
		if oneLine(got.text) != "Portable words" || err != nil {
			t.Errorf("%s: got %q, %v", name, got.text, err)
		}
	}
	_, err := extract(t.Context(), file(t, "broken.pdf", "%PDF-1.4 and no more"))
	if err == nil || !strings.HasPrefix(err.Error(), "pdftotext: Syntax ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("broken: got %v, want pdftotext's own words, in a line", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := extract(ended, file(t, "page.pdf", onePage)); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: got %v", err)
	}
}

func TestExtractWithoutPDFToText(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := extract(t.Context(), file(t, "page.pdf", onePage))
	if err == nil || err.Error() != "pdftotext: not installed (it is in poppler-utils)" {
		t.Errorf("got %v", err)
	}
}
