package localstack

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// listen waits for NOTIFY pgrst, until the stand-in closes. After each notification, it
// reads the database schema or the roles' settings again. It reads both whenever it
// connects, because it may have missed notifications.
func (s *standIn) listen() {
	const shortest, longest = 50 * time.Millisecond, time.Second // PostgREST waits up to 32 s, which is too long for tests
	wait := shortest
	for s.ctx.Err() == nil {
		connected, err := s.listenOnce()
		if connected {
			wait = shortest
		}
		if s.ctx.Err() != nil {
			return
		}
		s.log("stand-in: listener: %v", err)
		s.delay.Store(int64((wait + time.Second - 1) / time.Second))
		select {
		case <-time.After(wait):
		case <-s.ctx.Done():
		}
		wait = min(2*wait, longest)
	}
}

func (s *standIn) listenOnce() (connected bool, err error) {
	conn, err := pgx.ConnectConfig(s.ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(s.ctx))
	if _, err := conn.Exec(s.ctx, "LISTEN pgrst"); err != nil {
		return false, err
	}
	if err := s.reloadSettings(conn); err != nil {
		return false, err
	}
	if err := s.reloadSchema(conn); err != nil { // the stand-in answers requests from now on
		return false, err
	}
	s.delay.Store(0)
	for {
		notice, err := conn.WaitForNotification(s.ctx)
		if err != nil {
			return true, err
		}
		switch notice.Payload {
		case "", "reload schema":
			err = s.reloadSchema(conn)
		case "reload config":
			err = s.reloadSettings(conn)
		}
		if err != nil {
			return true, err
		}
	}
}

func (s *standIn) reloadSchema(conn *pgx.Conn) error {
	cache, err := loadSchema(s.ctx, conn)
	if err != nil {
		return fmt.Errorf("reading the schema: %w", err)
	}
	s.schema.Store(cache)
	return nil
}

func (s *standIn) reloadSettings(conn *pgx.Conn) error {
	settings, err := loadSettings(s.ctx, conn)
	if err != nil {
		return fmt.Errorf("reading the roles' settings: %w", err)
	}
	s.settings.Store(&settings)
	return nil
}
