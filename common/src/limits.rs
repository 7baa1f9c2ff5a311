//! Every cap and default in one place. Names carry their unit; [`Duration`]s carry it in their type.
//!
//! What an operator may change is a field of [`crate::config::RunConfig`], with its default here.

use std::time::Duration;

// Sizes of what comes in.

/// Longest run id, in bytes; it is part of every Redis key and of message ids (AMQP short strings hold 255 bytes).
pub const RUN_ID_BYTES_MAX: usize = 128;
/// Largest body of any message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Longest objective, in bytes.
pub const OBJECTIVE_BYTES_MAX: usize = 64 << 10;
/// Longest context that comes with an objective, in bytes.
pub const CONTEXT_BYTES_MAX: usize = 256 << 10;

// Plans.

/// Most steps in a plan, unless configured.
pub const PLAN_STEPS_DEFAULT: usize = 100;
/// Most steps in a plan that may be configured.
pub const PLAN_STEPS_MAX: usize = 10_000;
/// Longest description of a step, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 8 << 10;
/// Largest `arguments` of a step as JSON, in bytes.
pub const ARGUMENTS_BYTES_MAX: usize = 64 << 10;
/// How often a refused plan goes back to the model with the complaints.
pub const PLAN_REPAIRS_MAX: u32 = 2;
/// Most complaints about one plan that are collected; a hostile plan could earn thousands.
pub const PLAN_COMPLAINTS_MAX: usize = 20;

/// How often a plan may be revised, unless configured or asked for.
pub const REPLANS_DEFAULT: u32 = 3;
/// Most revisions of a plan that may be configured.
pub const REPLANS_MAX: u32 = 20;
/// How often somebody may send a plan back with feedback; after that the run is cancelled.
pub const REJECTIONS_MAX: u32 = 20;
/// How often a patch is fitted to where the steps stand by now, when they move while it is being stored.
pub const PATCH_TRIES_MAX: u32 = 10;
/// Longest reason of a patch, in characters; the rest is cut.
pub const PATCH_REASON_CHARS_MAX: usize = 500;
/// Largest check of a step as JSON, in bytes.
pub const CHECK_BYTES_MAX: usize = 16 << 10;
/// How long a plan waits for approval, unless configured or asked for.
pub const APPROVAL_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Longest wait for approval that may be asked for.
pub const APPROVAL_TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Longest text of who and why in a control message, in bytes.
pub const CONTROL_TEXT_BYTES_MAX: usize = 4 << 10;
/// Commands of one run whose answers are remembered: a redelivered one is not carried out twice.
pub const CONTROLS_KEPT_MAX: usize = 1_000;

// Deadlines and budgets.

/// Longest deadline that may be asked for.
pub const DEADLINE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Steps end this much before the deadline, or a tenth of it if that is less: time to write the answer.
pub const DEADLINE_RESERVE_MAX: Duration = Duration::from_secs(30);
/// Tokens of a budget that only the answer may use; or a fifth of the budget, if that is less.
pub const ANSWER_TOKENS_RESERVE: u64 = 4_000;
/// How long a call waits that others' reservations stand in the way of.
pub const BUDGET_BUSY_WAIT: Duration = Duration::from_secs(5);
/// Tokens that one reply is expected to have, for reservations and quotes.
pub const REPLY_TOKENS_ESTIMATE: u64 = 300;
/// Tokens that one prompt is expected to have, for quotes.
pub const PROMPT_TOKENS_ESTIMATE: u64 = 700;

// Steps.

/// Steps of one run in flight at once, unless configured or asked for.
pub const PARALLEL_STEPS_DEFAULT: usize = 100;
/// Largest result of one step as JSON, in bytes.
pub const RESULT_BYTES_MAX: usize = 256 << 10;
/// Tries per step, the first included.
pub const STEP_ATTEMPTS_MAX: u32 = 4;
/// How long one attempt of a step may take; below RabbitMQ's 30 minutes for an unacknowledged message.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a claim holds without renewal. It is renewed at a third of this.
pub const STEP_LEASE: Duration = Duration::from_secs(30);
/// How often a process asks whether the work in its hands is still wanted: a cancelled run stops within twice this.
pub const HOLD_POLL: Duration = Duration::from_millis(400);
/// Longest `learned` of a step, in bytes.
pub const LEARNED_BYTES_MAX: usize = 2 << 10;
/// Bits of a fencing epoch that say which claim of its count it is. The count has 25 bits left: scripts reckon in floating point, which is
/// exact up to 2^53.
pub const FENCE_BITS: u32 = 28;
/// Claims of one attempt before the step counts as poison: it has ended that many executors.
pub const CLAIMS_MAX: u32 = 5;
/// How often one attempt may be parked by rate limits before it fails.
pub const PARKS_MAX: u32 = 100;
/// Model turns in one step's tool loop.
pub const TOOL_TURNS_MAX: usize = 12;
/// Tool calls that are taken from one model turn; the rest are refused.
pub const TOOL_CALLS_PER_TURN_MAX: usize = 8;
/// How long one tool call may take.
pub const TOOL_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest output of one tool call as JSON, in bytes; more is cut and said so.
pub const TOOL_OUTPUT_BYTES_MAX: usize = 64 << 10;

// Tools.

/// Most complaints about one tool call's arguments that go back to a model.
pub const TOOL_COMPLAINTS_MAX: usize = 5;
/// Longest expression that `calculate` takes, in bytes: its parser recurses, some 50 KiB of stack a byte at worst.
pub const EXPRESSION_BYTES_MAX: usize = 1_000;
/// Deepest nesting of brackets in an expression.
pub const EXPRESSION_DEPTH_MAX: usize = 100;
/// Stack for an expression of that length, in bytes; only the part that is used is ever backed by memory.
pub const EXPRESSION_STACK_BYTES: usize = 64 << 20;
/// How long one calculation may take; what takes longer grows without end (`10^10^10`).
pub const CALCULATION_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest result of a calculation, in bytes: a number cut short would be a wrong number.
pub const CALCULATION_BYTES_MAX: usize = 16 << 10;
/// Passages that one search returns, unless asked for.
pub const SEARCH_RESULTS_DEFAULT: usize = 5;
/// Most passages that one search returns.
pub const SEARCH_RESULTS_MAX: usize = 20;
/// Different words of a query that count.
pub const SEARCH_TERMS_MAX: usize = 64;
/// Longest passage, in characters.
pub const PASSAGE_CHARS_MAX: usize = 1_000;
/// Files of the search folder that are read.
pub const SEARCH_FILES_MAX: usize = 10_000;
/// Entries of the search folder, of any kind, that are looked at.
pub const SEARCH_ENTRIES_MAX: usize = 100_000;
/// Depth of folders below the search folder.
pub const SEARCH_DEPTH_MAX: usize = 16;
/// Largest file that is searched, in bytes.
pub const SEARCH_FILE_BYTES_MAX: u64 = 1 << 20;
/// All searched files together, in bytes; the index takes about ten times as much memory.
pub const SEARCH_BYTES_MAX: u64 = 16 << 20;

// Models.

/// How long one model call may take.
pub const MODEL_TIMEOUT: Duration = Duration::from_secs(120);
/// Largest reply body that is read from a model endpoint, in bytes.
pub const MODEL_BODY_BYTES_MAX: usize = 4 << 20;
/// Longest wait that an endpoint's `Retry-After` is believed.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Most tokens, read or written, that an endpoint is believed to have counted for one request; beyond it the count is estimated.
pub const TOKENS_BELIEVED_MAX: u64 = 1 << 30;
/// Wait after a 429 that names no time.
pub const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(5);
/// What one earlier result may add to a prompt, in bytes; the rest is cut and said so.
pub const PROMPT_RESULT_BYTES_MAX: usize = 8 << 10;
/// What all earlier results together may add to a prompt, in bytes.
pub const PROMPT_RESULTS_BYTES_MAX: usize = 48 << 10;

// Waiting and repair.

/// First wait before a transient failure is tried again; doubled each time, with full jitter.
pub const RETRY_BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest wait before a transient failure is tried again.
pub const RETRY_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How long a published message may stay unclaimed before it is published again; doubled each time.
pub const DISPATCH_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a planner looks for runs whose wake-up time has come.
pub const WAKEUP_POLL: Duration = Duration::from_millis(500);
/// Runs that one poll takes.
pub const WAKEUPS_PER_POLL_MAX: usize = 100;
/// Longest time between two looks at a live run.
pub const WAKEUP_INTERVAL_MAX: Duration = Duration::from_secs(30);
/// How long a planner may take to look at a run whose wake-up time has come, before another one looks: should it die meanwhile, its
/// runs wait for no more than this.
pub const WAKEUP_LOOK_MAX: Duration = Duration::from_secs(10);
/// How long a message of a run that a newer release has written is kept, at first and at most, before it goes back to the end of its queue;
/// and how long the wake-up of such a run is left to others.
pub const RETURN_WAIT_MIN: Duration = Duration::from_secs(1);
/// See [`RETURN_WAIT_MIN`].
pub const RETURN_WAIT_MAX: Duration = Duration::from_secs(5);
/// Shards of the wake-up hints.
pub const WAKEUP_SHARDS: u32 = 8;
/// Tries to publish a reply to a queue of the submitter's before that is given up.
pub const REPLY_TRIES_MAX: u32 = 6;
/// Longest wait between two tries of one message.
pub const HANDLE_BACKOFF_MAX: Duration = Duration::from_secs(5);

// The broker.

/// Redeliveries of one message before the broker dead-letters it (`x-delivery-limit`).
pub const DELIVERY_LIMIT: i64 = 20;
/// Redeliveries of one dead letter before the broker drops it: nothing is behind the dead queue. Finite, because a message that
/// the client library cannot even decode takes the connection down with every delivery, and more than [`DELIVERY_LIMIT`],
/// because a dead letter shares its consumer's crashes.
pub const DEAD_DELIVERY_LIMIT: i64 = 100;
/// Messages that one queue of the in-memory broker holds before it refuses more.
pub const MEMORY_QUEUE_MESSAGES_MAX: usize = 1_000_000;
/// Publications of one batch that wait for their confirms at once.
pub const CONFIRM_WINDOW: usize = 256;
/// How long a confirm may take.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection to broker or store may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one store operation may take.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon after the Sentinels could not name a primary they are asked again.
pub const SENTINELS_ASKED_AFTER: Duration = Duration::from_millis(200);
/// Largest file of trusted certificates, in bytes; that of a whole system has a quarter of it.
pub const CA_FILE_BYTES_MAX: u64 = 1 << 20;
/// A younger connection to the store is not replaced: a server that is really read-only must not be flooded with new ones.
pub const STORE_REPLACED_AFTER: Duration = Duration::from_secs(1);
/// A channel on which the broker has refused messages for this long is replaced. A quorum queue that was full tells each channel when
/// it takes messages again, but RabbitMQ 3.10 forgets to when its limit has been lifted: such a channel is refused for ever.
pub const CHANNEL_REFUSED_AFTER: Duration = Duration::from_secs(1);
/// Longest name of a queue, id or type that AMQP carries (a short string), in bytes.
pub const AMQP_TEXT_BYTES_MAX: usize = 255;
/// How long the broker may take to declare the queues of a new connection; quorum queues elect a leader first.
pub const DECLARE_TIMEOUT: Duration = Duration::from_secs(15);
/// How often queues are declared again that somebody else declares in the same moment.
pub const DECLARE_COLLISIONS_MAX: u32 = 5;
/// Wait before a queue that somebody deleted is declared again. Made again at once, RabbitMQ 3.10 forgets to cancel the old queue's
/// consumers and hands them messages that it never sends.
pub const REDECLARE_DELAY: Duration = Duration::from_secs(1);
/// First wait between two tries to connect; doubled each time, with full jitter.
pub const RECONNECT_BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait between two tries to connect.
pub const RECONNECT_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long a channel that did not answer may take to be closed; the broker closes it later all the same.
pub const GIVEN_UP_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// AMQP heartbeat, in seconds; a dead peer is noticed after two.
pub const HEARTBEAT_SECS: u16 = 10;
/// Tries of one dead letter that cannot be handled, because the store makes no sense, before it is only kept for people: the others wait
/// behind it.
pub const DEAD_LETTER_TRIES_MAX: u32 = 3;
/// Dead letters kept for reading in Redis.
pub const DEAD_LETTERS_KEPT: usize = 1_000;

// Looking at a stack (`planrelay doctor`).

/// Largest first frame of a broker that is read, in bytes.
pub const GREETING_BYTES_MAX: usize = 64 << 10;
/// How long one question to a server may take that is only asked by `doctor`.
pub const DOCTOR_TIMEOUT: Duration = Duration::from_secs(10);
/// How long all questions to a model may take together; one that has to be loaded first takes its time.
pub const DOCTOR_MODEL_TIMEOUT: Duration = Duration::from_secs(180);
/// Largest answer of the broker's management API or of a list of models that is read, in bytes.
pub const DOCTOR_BODY_BYTES_MAX: usize = 4 << 20;
/// Nodes of a Redis Cluster that are looked at.
pub const DOCTOR_NODES_MAX: usize = 100;
/// Clocks that differ by more than this are worth a warning.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(2);
/// How long a consumer may keep a message, unless RabbitMQ is told otherwise.
pub const CONSUMER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30 * 60);

// Keeping.

/// How long the keys of a finished run are kept.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
/// Entries of a run's audit trail before the oldest are dropped (approximately).
pub const EVENTS_MAX: usize = 200_000;
/// How long the opening of a run may take before its place in the list counts as left over.
pub const UNOPENED_MAX: Duration = Duration::from_secs(3600);
/// Runs that `list` can see.
pub const RUNS_LISTED_MAX: usize = 10_000;
/// How long running work may go on after a stop signal.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(25);
/// How much longer a process waits than its lease holders, which give unfinished work back at the end of the grace.
pub const RELEASE_MARGIN: Duration = Duration::from_secs(3);
/// What is kept of a dead letter's body, in characters.
pub const DEAD_LETTER_CHARS_KEPT: usize = 16 << 10;
/// Longest reason of a dead letter, in characters: it stands in a header, and headers must fit one AMQP frame.
pub const REASON_CHARS_MAX: usize = 500;
/// Longest trace context that is handed on, in bytes; W3C's has 55.
pub const TRACEPARENT_BYTES_MAX: usize = 255;
/// How long the last spans of a process may take on their way to the collector.
pub const TRACE_FLUSH_MAX: Duration = Duration::from_secs(5);
/// How often it is said that a collector does not take spans.
pub const TRACE_COMPLAINT_INTERVAL: Duration = Duration::from_secs(300);
/// Largest answer of a collector that is read, in bytes.
pub const TRACE_RESPONSE_BYTES_MAX: usize = 64 << 10;
/// What is said of a prompt, a reply, arguments or a result in one attribute of a span, in bytes before they are escaped.
pub const TRACE_CONTENT_BYTES_MAX: usize = 64 << 10;
/// How often a planner looks for live runs whose wake-up has been lost.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Runs that one such look takes.
pub const SWEEP_RUNS_MAX: usize = 100;

// Watching.

/// Names of models that stand in metrics; further ones are called `other`.
pub const METRIC_MODELS_MAX: usize = 16;
/// Slots in flight of one run that a census looks at.
pub const PULSE_SLOTS_MAX: usize = 100;
/// Time between two looks at all that goes on, for the gauges of `planrelay serve`.
pub const CENSUS_INTERVAL: Duration = Duration::from_secs(15);
/// Live runs that one such look takes; the others are counted without their status.
pub const CENSUS_RUNS_MAX: usize = 10_000;
/// How many runs it looks at at once.
pub const CENSUS_PARALLEL: usize = 16;
/// A run without an entry in its audit trail for so long counts as stuck, unless it waits for a person. Longer if steps may take longer.
pub const STUCK_AFTER: Duration = Duration::from_secs(15 * 60);
/// Longest wait for a result that one request to the API may ask for.
pub const API_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long one stream of events lasts; whoever follows further comes back with the last event's id.
pub const API_STREAM_MAX: Duration = Duration::from_secs(15 * 60);
/// Requests to the API that wait, stream, list or command at once; further ones are refused.
pub const API_WAITS_MAX: usize = 256;
/// Runs that one request to the API may list.
pub const API_LIST_MAX: usize = 200;
/// Runs that are read at once for it.
pub const API_LIST_PAGE: usize = 100;
/// Entries of an audit trail that one answer of the API holds.
pub const API_EVENTS_MAX: usize = 1_000;
/// How long the API waits for a planner's answer to a command.
pub const API_CONTROL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the store may take to answer `/readyz`.
pub const READY_TIMEOUT: Duration = Duration::from_secs(3);
/// How long requests in hand may take to be answered at a stop.
pub const HTTP_DRAIN: Duration = Duration::from_secs(2);
/// Connections over HTTP at once.
pub const HTTP_CONNECTIONS_MAX: usize = 1_024;
/// How long `healthcheck` waits for an answer.
pub const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(5);
