package dashboard_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// load requests all paths at the same time and returns the answers.
func load(h http.Handler, paths []string) []*httptest.ResponseRecorder {
	answers := make([]*httptest.ResponseRecorder, len(paths))
	var all sync.WaitGroup
	for i, path := range paths {
		all.Go(func() { answers[i] = get(h, path) })
	}
	all.Wait()
	return answers
}

// byStatus counts answers by their status.
func byStatus(answers []*httptest.ResponseRecorder) map[int]int {
	n := map[int]int{}
	for _, a := range answers {
		n[a.Code]++
	}
	return n
}

// TestReadsAreShared checks that identical reads share an answer for five
// seconds, in every view.
func TestReadsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{summary: emptySummary, documents: "[]", timeline: timeline(4, "", ""), delay: time.Second}
		h := handler(newClient(t, s))
		same := slices.Repeat([]string{"/", "/?range=24h", "/?refresh=off", "/?sort=failures", "/?edit=on"}, 20)
		if got := byStatus(load(h, same)); got[200] != 100 || s.count() != 1 {
			t.Fatalf("%v after %d requests", got, s.count())
		}
		time.Sleep(4 * time.Second)
		get(h, "/")
		if n := s.count(); n != 1 {
			t.Errorf("%d requests after 4 s", n)
		}
		time.Sleep(time.Second + time.Millisecond)
		get(h, "/")
		if n := s.count(); n != 2 {
			t.Errorf("%d requests after 5 s", n)
		}
		for _, path := range []string{
			"/?range=1h", "/?range=1h&stage=ocr", "/?range=1h&type=ocr", "/documents?range=1h", "/documents?range=1h&state=failed",
			"/document?id=" + document, "/document?id=" + document + "&order=oldest",
		} {
			before := s.count()
			get(h, path)
			get(h, path)
			if n := s.count() - before; n != 1 {
				t.Errorf("%s: %d requests", path, n)
			}
		}
	})
}

// TestReadsAreBounded checks that a server that doesn't answer gets at most four reads
// at a time, and that every request gets a response.
func TestReadsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{delay: time.Hour}
		h := handler(newClient(t, s))
		const loads = 200
		paths := make([]string, loads)
		for i := range paths {
			switch paths[i] = fmt.Sprintf("/?stage=%d", i); i % 3 {
			case 1:
				paths[i] = fmt.Sprintf("/documents?stage=%d", i)
			case 2:
				paths[i] = fmt.Sprintf("/document?id=%s&from=%d", document, i)
			}
		}
		start := time.Now()
		answers := load(h, paths)
		if got := byStatus(answers); got[504] != 4 || got[503] != loads-4 || s.count() > 2*4 {
			t.Errorf("%v after %d requests", got, s.count())
		}
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("it took %v", took)
		}
		for _, a := range answers {
			if a.Code == 503 {
				if got := a.Header().Get("Retry-After"); got != "5" {
					t.Errorf("Retry-After %q", got)
				}
				check(t, a, 503, "Too many views at once", `http-equiv="refresh" content="5"`)
				break
			}
		}
		s.delay, s.summary = 0, emptySummary
		time.Sleep(5*time.Second + time.Millisecond)
		check(t, get(h, "/?stage=0"), 200)
	})
}

// TestReadsGoOn checks that a read continues if the request that started it is canceled
// while another request waits for the result.
func TestReadsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{summary: emptySummary, delay: 2 * time.Second}
		h := handler(newClient(t, s))
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		go ask(h, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil), func(*http.Request) {})
		synctest.Wait()
		check(t, get(h, "/"), 200)
		if n := s.count(); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}
