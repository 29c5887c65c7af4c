//! A model's errors as a task's failures: what kind, and whether a new attempt, told of it, may help.

use crate::model::{JsonError, ModelError};
use crate::wire::{Failure, FailureKind, Retry, Role};

/// A model's error as the failure of a task of `role`. What a server asks us to wait, a new attempt waits.
pub fn of_model(role: Role, error: ModelError) -> Failure {
    use FailureKind::*;
    let kind = match &error {
        ModelError::Settings(_) | ModelError::BadRequest { .. } | ModelError::UnknownModel { .. } => ModelRequest,
        ModelError::Auth { .. } => ModelAuth,
        ModelError::Timeout { .. } | ModelError::Silent { .. } => Timeout,
        ModelError::RateLimited { .. }
        | ModelError::Quota { .. }
        | ModelError::Unavailable { .. }
        | ModelError::Busy { .. } => ModelUnavailable,
        ModelError::Truncated { .. } => ModelTruncated,
        ModelError::Garbled { .. } | ModelError::Malformed { .. } => ModelMalformed,
        ModelError::Script(_) => ModelScript,
        ModelError::OverBudget(_) => BudgetExceeded,
    };
    let again = match &error {
        // Its limit was the task's own.
        ModelError::Timeout { .. } => false,
        // A new attempt may get a larger share.
        ModelError::Malformed { .. } | ModelError::Busy { .. } | ModelError::OverBudget(_) => true,
        error => error.is_transient(),
    };
    let wait = error.retry_after().unwrap_or_default();
    let message = format!("{role} failed to {:#}", anyhow::Error::from(error));
    match again {
        true => {
            let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            Failure { retry: Retry::After { ms }, ..Failure::never(kind, message) }
        }
        false => Failure::never(kind, message),
    }
}

pub(super) fn of_json(role: Role, error: JsonError) -> Failure {
    match error {
        JsonError::Model { source, .. } => of_model(role, *source),
        JsonError::CutOff { output_tokens, .. } => cut_off(role, output_tokens),
        JsonError::Refused { said, .. } => refused(role, &said),
        JsonError::Paused { .. } => paused(role),
        error @ JsonError::Invalid { .. } => {
            Failure::again(FailureKind::ModelOutput, format!("{role} failed to {error}"))
        }
        error @ JsonError::Schema { .. } => Failure::never(FailureKind::Internal, format!("{role} failed to {error}")),
    }
}

pub(super) fn cut_off(role: Role, tokens: u32) -> Failure {
    let message = format!(
        "the model's answer to {role} was cut off at output_tokens {tokens}; write less, or raise the limit in roles/{role}.md"
    );
    Failure::again(FailureKind::ModelCutOff, message)
}

pub(super) fn refused(role: Role, said: &str) -> Failure {
    let said: String = said.chars().take(300).collect();
    Failure::never(
        FailureKind::ModelRefused,
        format!("the model of {role} refused ({said}); change the goal or the model"),
    )
}

pub(super) fn paused(role: Role) -> Failure {
    let message = format!("the model of {role} paused before its answer was whole; give it less to do at once");
    Failure::again(FailureKind::ModelPaused, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::{Peer, Silence};

    #[test]
    fn each_error_of_a_model_has_its_kind_and_its_retry() {
        let peer = || Arc::new(Peer { provider: None, host: "h".into(), model: "m".into() });
        let (said, why, limit) = (String::new, String::new, Duration::from_secs(1));
        let silent = |silence| ModelError::Silent { peer: peer(), silence, limit };
        let wait = Some(Duration::from_secs(7));
        let limited = |retry| ModelError::RateLimited { peer: peer(), said: said(), retry_after: wait, retry };
        let again = |ms| Retry::After { ms };
        use FailureKind::*;
        let rows = [
            (ModelError::Settings(said()), ModelRequest, Retry::Never),
            (ModelError::BadRequest { peer: peer(), status: 400, said: said() }, ModelRequest, Retry::Never),
            (
                ModelError::UnknownModel { peer: peer(), status: 404, said: said(), has: Vec::new(), served: None },
                ModelRequest,
                Retry::Never,
            ),
            (ModelError::Auth { peer: peer(), status: None, said: said() }, ModelAuth, Retry::Never),
            (ModelError::Quota { peer: peer(), status: 429, said: said() }, ModelUnavailable, Retry::Never),
            (limited(true), ModelUnavailable, again(7_000)),
            (limited(false), ModelUnavailable, Retry::Never),
            (ModelError::Busy { peer: peer(), limit: "l", max: 1, waited: limit }, ModelUnavailable, again(0)),
            (ModelError::Timeout { peer: peer(), limit }, Timeout, Retry::Never),
            (silent(Silence::FirstByte), Timeout, again(0)),
            (silent(Silence::Between), Timeout, again(0)),
            (ModelError::Truncated { peer: peer(), why: why(), source: None }, ModelTruncated, again(0)),
            (ModelError::Malformed { peer: peer(), why: why() }, ModelMalformed, again(0)),
            (ModelError::Garbled { peer: peer(), why: why() }, ModelMalformed, Retry::Never),
            (ModelError::OverBudget(why()), BudgetExceeded, again(0)),
        ];
        for (error, kind, retry) in rows {
            let about = error.to_string();
            let failure = of_model(Role::Coder, error);
            assert_eq!((failure.kind, failure.retry), (kind, retry), "{about}");
        }
    }
}
