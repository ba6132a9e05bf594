// The original design with @supabase/supabase-js: the app starts one insert per event and
// doesn't wait for it. Errors are logged. The script reads a spec (worker.go) from standard
// input and writes a sample (stats.go) to standard output.
import diagnostics from 'node:diagnostics_channel'
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { createClient } from '@supabase/supabase-js'

const spec = JSON.parse(readFileSync(0, 'utf8'))
const { load } = spec

// Node's fetch is undici, which publishes its connections and requests.
let connections = 0
let requests = 0
diagnostics.subscribe('undici:client:connected', () => connections++)
diagnostics.subscribe('undici:request:create', () => requests++)

// One client per event would be even slower. createClient requires a WebSocket, although
// nothing here uses it, and Node has none before version 22.
let client
const getSupabaseServiceClient = () =>
  (client ??= createClient(spec.url.replace(/\/+$/, '').replace(/\/rest\/v1$/, ''), spec.key, {
    auth: { persistSession: false, autoRefreshToken: false },
    realtime: { transport: globalThis.WebSocket ?? class {} },
  }))

let failed = 0
let lastError
let settled = 0
let onSettled = () => {}
const logger = {
  error(message, fields) {
    failed++
    lastError = JSON.stringify({ message, ...fields }) // formatted, not written
  },
}

// recordProcessingEvent starts an insert and returns. It never throws or rejects.
function recordProcessingEvent(data) {
  void getSupabaseServiceClient()
    .from(spec.table)
    .insert({
      document_id: data.documentId,
      user_id: data.userId,
      event_type: data.eventType,
      duration_ms: data.durationMs ?? null,
      error_message: data.errorMessage ?? null,
      stage: data.stage ?? null,
      created_at: new Date().toISOString(),
    })
    .then(({ error }) => {
      if (error) logger.error('failed to record processing event', { error: error.message, code: error.code })
      settled++
      onSettled()
    })
}

let documentId
function eventAt(i) {
  const e = { userId: spec.user }
  if (i % 4 === 0) documentId = randomUUID()
  e.documentId = documentId
  switch (i % 4) {
    case 0: e.eventType = 'upload_started'; e.stage = 'upload'; break
    case 1: e.eventType = 'processing_started'; e.stage = 'extract'; break
    case 2: e.eventType = 'completed'; e.stage = 'extract'; e.durationMs = 1234; break
    case 3:
      e.eventType = 'completed'; e.stage = 'embed'; e.durationMs = 567
      if (Math.floor(i / 4) % 20 === 0) {
        e.eventType = 'failed'
        e.errorMessage = 'embed: the model answered with status 429: too many requests'
      }
  }
  return e
}

const now = () => process.hrtime.bigint()

function spreadOf(times) {
  times.sort()
  const quantile = (q) => Number(times[Math.max(1, Math.ceil(q * times.length)) - 1] ?? 0)
  return { p50_ns: quantile(0.5), p99_ns: quantile(0.99), max_ns: quantile(1) }
}

// settle resolves when this many inserts have succeeded or failed.
const settle = (n) =>
  new Promise((resolve) => {
    onSettled = () => { if (settled >= n) resolve() }
    onSettled()
  })

async function measureLoad() {
  const calls = new BigInt64Array(load.events)
  const start = now()
  let recorded = 0
  const recordUntil = (n) => {
    for (; recorded < n; recorded++) {
      const e = eventAt(recorded)
      const before = now()
      recordProcessingEvent(e)
      calls[recorded] = now() - before
    }
  }
  if (load.kind === 'steady') {
    while (recorded < load.events) {
      recordUntil(Math.min(load.events, Math.floor((Number(now() - start) / 1e9) * load.rate) + 1))
      await sleep(1)
    }
  } else {
    recordUntil(load.events)
  }
  await settle(load.events)
  const counted = { connections, requests } // before the reads below
  while (failed === 0) {
    const { data, error } = await getSupabaseServiceClient()
      .from(spec.table).select('id').eq('document_id', documentId).limit(1)
    if (error || data.length > 0) break
  }
  return { elapsed_ns: Number(now() - start), call: spreadOf(calls), ...counted }
}

async function measureIdle() {
  const warmups = 5
  const toRow = new BigInt64Array(load.events - warmups)
  const start = now()
  for (let i = 0; i < load.events; i++) {
    const e = eventAt(i)
    await sleep(10)
    const before = now()
    recordProcessingEvent(e)
    await settle(i + 1)
    if (i >= warmups) toRow[i - warmups] = now() - before
  }
  return { elapsed_ns: Number(now() - start), to_row: spreadOf(toRow) }
}

// On Linux, peakBytes doesn't use maxRSS, whose value starts with the peak of the parent
// process.
function peakBytes() {
  try {
    return Number(/VmHWM:\s*(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024
  } catch {
    return process.resourceUsage().maxRSS * 1024
  }
}

const cpu = process.cpuUsage()
const begun = now()
const limit = sleep(spec.limit_ns / 1e6).then(() => ({
  elapsed_ns: Number(now() - begun), ended: 'the time limit',
}))
const measured = await Promise.race([load.kind === 'idle' ? measureIdle() : measureLoad(), limit])
const used = process.cpuUsage(cpu)
const sample = {
  connections, requests, ...measured,
  errors: failed, error: lastError, peak_bytes: peakBytes(), cpu_seconds: (used.user + used.system) / 1e6,
}
process.stdout.write(JSON.stringify(sample) + '\n', () => process.exit())
