//! The documenter: one README, as a file of the result.

use super::briefing::{Briefing, storage};
use super::{Desk, Product, Stopped};
use crate::store::FileSet;
use crate::wire::{Failure, FailureKind, Role, Usage};

/// The file that it writes.
const README: &str = "README.md";

pub(super) async fn work(desk: &Desk, briefing: &Briefing, usage: &mut Usage) -> Result<Product, Stopped> {
    let text = desk.ask_text(briefing, usage).await?;
    let text = unfenced(&text);
    let path = README.parse().map_err(|bad| Failure::never(FailureKind::PathRefused, format!("{bad}")))?;
    let files = FileSet::from([(path, format!("{text}\n").into_bytes())]);
    let artifacts = desk.store.artifacts.put(&briefing.task.run, Role::Documenter, &files).await.map_err(storage)?;
    Ok(Product { artifacts, ..Product::text(text.to_owned()) })
}

/// The text without the code fence that models like to put around a whole Markdown file.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let inner = text.strip_prefix("```markdown").or_else(|| text.strip_prefix("```md"));
    inner.and_then(|inner| inner.strip_suffix("```")).map_or(text, str::trim)
}

#[cfg(test)]
mod tests {
    use super::unfenced;

    #[test]
    fn only_a_fence_around_everything_goes() {
        assert_eq!(unfenced("```markdown\n# A\n```\n"), "# A");
        assert_eq!(unfenced("# A\n```python\nx\n```"), "# A\n```python\nx\n```");
    }
}
