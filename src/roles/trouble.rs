//! A model's errors as a task's failures: what kind, and whether a new attempt, told of it, may help.

use crate::model::{JsonError, ModelError};
use crate::wire::{Failure, FailureKind, Role};

/// A model's error as the failure of a task of `role`.
pub fn of_model(role: Role, error: ModelError) -> Failure {
    let kind = match &error {
        ModelError::Settings(_) | ModelError::BadRequest { .. } => FailureKind::ModelRequest,
        ModelError::Auth { .. } => FailureKind::ModelAuth,
        ModelError::Timeout { .. } => FailureKind::Timeout,
        ModelError::RateLimited { .. } | ModelError::Quota { .. } | ModelError::Unavailable { .. } => {
            FailureKind::ModelUnavailable
        }
        ModelError::Garbled { .. } => FailureKind::ModelOutput,
        ModelError::Script(_) => FailureKind::ModelScript,
    };
    let again = error.is_transient() && !matches!(error, ModelError::Timeout { .. });
    let message = format!("{role} failed to {:#}", anyhow::Error::from(error));
    if again { Failure::again(kind, message) } else { Failure::never(kind, message) }
}

pub(super) fn of_json(role: Role, error: JsonError) -> Failure {
    match error {
        JsonError::Model { source, .. } => of_model(role, *source),
        JsonError::CutOff { output_tokens, .. } => cut_off(role, output_tokens),
        JsonError::Refused { said, .. } => refused(role, &said),
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
