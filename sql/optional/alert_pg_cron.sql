-- +goose Up
-- Posts alerts from inside the database. Every minute, pg_cron runs the same check as
-- Client.Health: are documents stuck, do too many fail (failing), or do none complete anymore
-- (silent)? When one of these problems begins or ends, pg_net posts the result to a webhook, such
-- as Slack's. This file needs 014. Safe to run again, even with a different webhook or different
-- limits.
--
-- Before you run this file, fill in the webhook and the limits at its end. If pg_cron or pg_net
-- isn't installed, the file creates only the table and the functions. In Supabase, pg_cron is under
-- Integrations, Cron, and pg_net is under Database, Extensions. If a check ends with an error,
-- cron.job_run_details contains the error. If a post fails, it isn't repeated, and
-- net._http_response contains the webhook's response.

-- Each row is an alert, with the kinds of problems that it last posted.
CREATE TABLE IF NOT EXISTS public.docevents_alerts (
    name  text        PRIMARY KEY,
    kinds text[]      NOT NULL DEFAULT '{}', -- stuck, failing and silent; empty if all is well
    since timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE public.docevents_alerts ENABLE ROW LEVEL SECURITY;

-- docevents_health returns {"ok", "problems", "kinds", ...}: whether all is well, the problems as
-- sentences, their kinds, and the figures. The arguments are the table and the limits of
-- Client.Health:
--   source: the table and its filters, as in 014. '{}' is the table of 013.
--   rate_window: the period of the failure rate. A shorter period shows a rise sooner.
--   stuck_after: a document that is under way for longer than this is stuck.
--   max_stuck: more stuck documents than this are a problem.
--   max_failure_rate: a higher share of failed documents than this (0 to 1) is a problem. Only
--     documents that completed or failed in rate_window are counted.
--   min_ended: if fewer documents than this completed or failed in rate_window, the failure rate
--     isn't checked.
--   silence: it is a problem if the last completion is longer ago than this, and a document has
--     been under way for longer than this. NULL disables the check.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION public.docevents_health(
    source           jsonb            DEFAULT '{}',
    rate_window      interval         DEFAULT '1 hour',
    stuck_after      interval         DEFAULT '30 minutes',
    max_stuck        bigint           DEFAULT 0,
    max_failure_rate double precision DEFAULT 0.5,
    min_ended        bigint           DEFAULT 20,
    silence          interval         DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY INVOKER SET search_path = '' SET timezone = 'UTC'
AS $function$
DECLARE
    in_utc         text := 'YYYY-MM-DD HH24:MI:SS "UTC"';
    since          timestamptz := now() - greatest(rate_window, interval '1 day' + greatest(stuck_after, silence)); -- the start of the range for stuck and silent
    recent         json := public.docevents_summary(source, now() - rate_window, now(), stuck_after);
    long           json := public.docevents_summary(source, since, now(), stuck_after);
    failed         bigint := recent ->> 'failed';
    ended          bigint := failed + (recent ->> 'completed')::bigint;
    failure_rate   double precision := CASE WHEN ended > 0 AND ended >= min_ended THEN failed / ended::double precision ELSE 0 END;
    stuck          bigint := long ->> 'stuck_total';
    stuck_since    timestamptz := long -> 'stuck' -> 0 ->> 'started';
    last_completed timestamptz := long ->> 'last_completed';
    waiting        bigint := 0; -- documents that have been under way for longer than silence
    kinds          text[] := '{}';
    problems       text[] := '{}';
BEGIN
    IF stuck > max_stuck THEN
        kinds := kinds || text 'stuck';
        problems := problems || format('%s been under way for longer than %s min, the oldest since %s; the limit is %s.',
            CASE stuck WHEN 1 THEN '1 document has' ELSE stuck || ' documents have' END, round(extract(epoch FROM stuck_after) / 60, 1)::float, to_char(stuck_since, in_utc), max_stuck);
    END IF;
    IF failure_rate > max_failure_rate THEN
        kinds := kinds || text 'failing';
        problems := problems || format('%s of the %s documents that ended in the last %s min failed, %s %%; the limit is %s %%.',
            failed, ended, round(extract(epoch FROM rate_window) / 60, 1)::float, to_char(100 * failure_rate, 'FM990.0'), to_char(100 * max_failure_rate, 'FM990.0'));
    END IF;
    IF now() - greatest(last_completed, since) > silence AND (long ->> 'under_way')::bigint > 0 THEN
        waiting := public.docevents_summary(source, since, now(), silence) ->> 'stuck_total';
    END IF;
    IF waiting > 0 THEN
        kinds := kinds || text 'silent';
        problems := problems || format('No document has completed since %s, although %s been under way for longer than %s min.',
            to_char(greatest(last_completed, since), in_utc), CASE waiting WHEN 1 THEN '1 document has' ELSE waiting || ' documents have' END, round(extract(epoch FROM silence) / 60, 1)::float);
    END IF;
    RETURN jsonb_build_object('ok', kinds = '{}', 'problems', problems, 'kinds', kinds, 'at', now(),
        'ended', ended, 'failed', failed, 'failure_rate', failure_rate, 'under_way', (long ->> 'under_way')::bigint,
        'stuck', stuck, 'stuck_since', stuck_since, 'last_completed', last_completed);
END
$function$;
-- +goose StatementEnd

-- docevents_alert posts a result of docevents_health to the webhook, if the kinds of problems
-- have changed since the last post under the same name. It returns true if it posted. Slack,
-- Mattermost and Teams show the field "text". Discord needs "content" instead.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION public.docevents_alert(webhook text, health jsonb, name text DEFAULT 'documents')
RETURNS boolean
LANGUAGE plpgsql SECURITY INVOKER SET search_path = ''
AS $function$
BEGIN
    INSERT INTO public.docevents_alerts (name) VALUES (docevents_alert.name) ON CONFLICT DO NOTHING;
    UPDATE public.docevents_alerts AS a
        SET kinds = ARRAY(SELECT jsonb_array_elements_text(health -> 'kinds')), since = now()
        WHERE a.name = docevents_alert.name AND a.kinds <> ARRAY(SELECT jsonb_array_elements_text(health -> 'kinds'));
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM net.http_post(url => webhook, body => health || jsonb_build_object('name', name, 'text', CASE
        WHEN (health ->> 'ok')::boolean THEN format('docevents: %s: all is well again.', name)
        ELSE format('docevents: %s: %s', name, (SELECT string_agg(problem, ' ') FROM jsonb_array_elements_text(health -> 'problems') AS problem))
    END));
    RETURN true;
END
$function$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE
    webhook text := ''; -- the webhook's URL; every role that can read cron.job can read it
    health  text := $job$public.docevents_health()$job$; -- your table and limits, such as docevents_health('{"table": "events"}', silence => '10 minutes')
    routine regprocedure;
    role    text;
BEGIN
    -- By default, every role may execute a new function. Revoke that right, and all rights on
    -- the table.
    FOR role IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
        EXECUTE format('REVOKE ALL ON public.docevents_alerts FROM %I', role);
    END LOOP;
    FOR routine IN SELECT oid FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proname IN ('docevents_health', 'docevents_alert')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', routine);
        FOR role IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I', routine, role);
        END LOOP;
    END LOOP;

    IF to_regprocedure('cron.schedule(text, text, text)') IS NULL OR to_regnamespace('net') IS NULL THEN
        RAISE NOTICE 'pg_cron or pg_net is not installed: nothing is scheduled. Enable both and run this again.';
    ELSIF webhook = '' THEN
        RAISE NOTICE 'no webhook: nothing is scheduled. Fill it in at the end of this file and run it again.';
    ELSE
        -- This replaces a job of the same name.
        PERFORM cron.schedule('docevents_alert', '* * * * *', format('SELECT public.docevents_alert(%L, %s)', webhook, health));
    END IF;
END
$$;
-- +goose StatementEnd

-- To add an alert about one tenant, schedule another job. Give the job and the alert new names,
-- such as 'docevents_alert_acme' and 'acme':
-- SELECT cron.schedule('docevents_alert_acme', '* * * * *', $$SELECT public.docevents_alert('https://hooks.example.com/1',
--     public.docevents_health('{"filters": {"tenant_id": "acme"}}', max_failure_rate => 0.2), 'acme')$$);
