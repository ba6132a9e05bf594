package localstack

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// poolTimeout is PostgREST's db-pool-acquisition-timeout.
const poolTimeout = 10 * time.Second

// result is the one row that every statement returns.
type result struct {
	total    *int64 // the table's rows that match the filters; nil if a request doesn't count them
	rows     int64  // the rows that the statement returned, inserted, updated or deleted
	inserted int64  // the inserted rows, for an insert that merges duplicates
	body     []byte // the rows as a JSON array, or a function's value
}

// rowCheck returns an error if a statement's number of rows is not acceptable.
type rowCheck func(rows int64) *postgrest.Error

// run runs the statement st in a new transaction, with the caller's role. If checkRows
// isn't nil, run calls it with the number of rows that the statement returned or
// changed. If checkRows returns an error, run rolls back and returns this error.
func (s *standIn) run(who caller, access pgx.TxAccessMode, st *statement, checkRows rowCheck) (result, *postgrest.Error) {
	acquire, cancel := context.WithTimeout(s.ctx, poolTimeout)
	conn, err := s.pool.Acquire(acquire)
	cancel()
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return result{}, errPoolTimeout
		}
		return result{}, connectError(err)
	}
	defer conn.Release()
	var r result
	err = pgx.BeginTxFunc(s.ctx, conn, pgx.TxOptions{AccessMode: access}, func(tx pgx.Tx) error {
		if err := s.become(tx, who); err != nil {
			return err
		}
		if err := tx.QueryRow(s.ctx, st.String(), st.args...).Scan(&r.total, &r.rows, &r.inserted, &r.body); err != nil {
			return err
		}
		if checkRows != nil {
			if refused := checkRows(r.rows); refused != nil {
				return refused
			}
		}
		return nil
	})
	var refused *postgrest.Error
	switch {
	case err == nil:
		return r, nil
	case errors.As(err, &refused):
		return r, refused
	}
	return r, databaseError(err, who.anonymous())
}

// become switches to the caller's role for the rest of the transaction, and applies the
// role's settings.
func (s *standIn) become(tx pgx.Tx, who caller) error {
	st := &statement{}
	set := func(name, value string) {
		if st.Len() == 0 {
			st.add("SELECT ")
		} else {
			st.add(", ")
		}
		st.add("set_config(")
		st.bind(name)
		st.add(", ")
		st.bind(value)
		st.add(", true)")
	}
	set("search_path", exposed)
	for _, setting := range (*s.settings.Load())[who.role] {
		set(setting[0], setting[1])
	}
	set("role", who.role)
	set("request.jwt.claims", string(who.claims))
	_, err := tx.Exec(s.ctx, st.String(), st.args...)
	return err
}
