//! What the three wire formats have in common on the way back.

use super::Finish;
use crate::wire::Usage;

/// What a provider's reply holds, whichever the provider.
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) finish: Finish,
    /// `None` when the server sent no usage.
    pub(super) usage: Option<Usage>,
    pub(super) model: Option<String>,
}
