//! What can go wrong between us and the server.

/// Any error of a library below, kept whole as a source.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// An operation on the server that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// No connection.
    #[error(
        "failed to reach NATS at {servers}; start a server (`oarlock up`), or name yours with --server, --context or NATS_URL"
    )]
    Connect {
        /// The addresses tried.
        servers: String,
        /// Why.
        source: Source,
    },
    /// The server's refusal to let us in.
    #[error(
        "NATS at {servers} refused our credentials; check NATS_USER and NATS_PASSWORD, NATS_TOKEN, NATS_CREDS or NATS_NKEY"
    )]
    Denied {
        /// The addresses tried.
        servers: String,
        /// Why.
        source: Source,
    },
    /// A right that our login does not have.
    #[error("our NATS login may not use {subject}; give it the right, or start with another login")]
    Forbidden {
        /// The subject.
        subject: String,
    },
    /// Credentials that cannot be used.
    #[error("failed to read the credentials {what}")]
    Credentials {
        /// Which.
        what: String,
        /// Why.
        source: Source,
    },
    /// Older than the features that we need.
    #[error(
        "NATS at {servers} is version {version}, and Oarlock needs {needed} or later; upgrade it, or let `oarlock up` start its own"
    )]
    TooOld {
        /// The addresses.
        servers: String,
        /// What it says it is.
        version: String,
        /// What is needed.
        needed: &'static str,
    },
    /// No durable storage.
    #[error(
        "NATS at {servers} runs without JetStream; start it with `nats-server -js`, or with the nats.conf of Oarlock"
    )]
    NoJetStream {
        /// The addresses.
        servers: String,
    },
    /// A stream, bucket or consumer could not be created or found.
    #[error("failed to declare {what}")]
    Declare {
        /// Its name.
        what: String,
        /// Why.
        source: Source,
    },
    /// Somebody else's message is on the subject, or a newer revision.
    #[error("subject {subject} is taken")]
    Taken {
        /// The subject.
        subject: String,
    },
    /// Larger than the server takes.
    #[error(
        "{subject} would be larger than the server's max_payload of {max} bytes (in JSON, a control character takes six)"
    )]
    TooLarge {
        /// The subject.
        subject: String,
        /// The bound.
        max: usize,
        /// What the client said.
        source: Source,
    },
    /// The stream's limits refuse more.
    #[error(
        "stream {stream} refuses {subject}: it is full; let the fleet work, raise its limits, or remove finished runs"
    )]
    Full {
        /// The stream.
        stream: String,
        /// The subject.
        subject: String,
        /// What the server said.
        source: Source,
    },
    /// Not stored within the time that a publish may take.
    #[error(
        "failed to store {subject} within {waited_s} s: the server does not confirm it; its log says why, and a full disk is \
         the usual reason"
    )]
    Publish {
        /// The subject.
        subject: String,
        /// Seconds waited.
        waited_s: u64,
        /// The last refusal.
        source: Source,
    },
    /// A read failed.
    #[error("failed to read {subject} from stream {stream}")]
    Read {
        /// The stream.
        stream: String,
        /// The subject or filter.
        subject: String,
        /// Why.
        source: Source,
    },
    /// More messages than a read may return.
    #[error("stream {stream} holds more than scan_messages_max {max} messages for {subject}")]
    TooMany {
        /// The stream.
        stream: String,
        /// The filter.
        subject: String,
        /// The bound.
        max: usize,
    },
    /// A subscription, service or plain request failed.
    #[error("failed to {what}")]
    Core {
        /// What was tried.
        what: String,
        /// Why.
        source: Source,
    },
    /// The embedded server did not start.
    #[error("failed to start the embedded nats-server: {why}")]
    Embedded {
        /// What happened and what to do.
        why: String,
    },
}
