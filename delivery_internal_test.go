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
