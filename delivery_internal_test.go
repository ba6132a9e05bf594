package docevents

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// The wait of an outage can outlive the rows that waited: the last one is given
// up. Then the next event goes at once.
func TestProbeFindsNothingToSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := newConfig(nil)
		if err != nil {
			t.Fatal(err)
		}
		sent := 0
		insert := func(_ context.Context, records []record) error {
			sent += len(records)
			return nil
		}
		d := newDelivery(insert, newReporter(&c), &c)
		d.down = true
		d.probe()
		if _, err := d.add(&record{}, nil, time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := d.flush(t.Context()); err != nil || sent != 1 {
			t.Errorf("%d sent, %v", sent, err)
		}
	})
}

// What is delivered of a batch whose rest waits doesn't hold on to its text.
func TestDeliveredTextIsLetGo(t *testing.T) {
	records := []record{{message: "long"}, {message: "rest"}}
	var d delivery
	d.deliverLocked(&batch{records: records}, 1)
	if records[0] != (record{}) || records[1].message != "rest" {
		t.Errorf("%+v", records)
	}
}

// A refused key says nothing about the size of a request, a lost answer may.
func TestRefusalDoesNotHalve(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{&Error{Status: 401}, 0}, // all
		{&Error{Status: 503}, 4},
	} {
		c, err := newConfig(nil)
		if err != nil {
			t.Fatal(err)
		}
		d := newDelivery(nil, newReporter(&c), &c)
		b := &batch{records: make([]record, 8)}
		d.settleLocked(b, 8, test.err, time.Now())
		if b.size != test.want || len(d.queue) != 1 {
			t.Errorf("%v: the next request takes %d of 8 rows (0: all), want %d", test.err, b.size, test.want)
		}
		d.timer.Stop()
	}
}
