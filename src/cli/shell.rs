//! `oarlock completions` and `oarlock man`: what a shell and a manual want to know, made from the parser itself.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use clap_complete::Shell;

use super::args::Command;
use super::talk::say;

/// Prints the completions of a shell.
pub(super) fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Command::of_tool(), "oarlock", &mut text);
    print(&text)
}

/// Prints the manual page, or writes it and one for each verb into a folder.
pub(super) fn man(folder: Option<&Path>) -> anyhow::Result<()> {
    match folder {
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Command::of_tool()).render(&mut text).context("make the manual page")?;
            print(&text)
        }
        Some(folder) => {
            let shown = folder.display();
            std::fs::create_dir_all(folder).with_context(|| format!("create {shown}"))?;
            let tool = Command::of_tool().disable_help_subcommand(true);
            clap_mangen::generate_to(tool, folder).with_context(|| format!("write the manual pages into {shown}"))?;
            say(&format!("next: man -l {}", folder.join("oarlock.1").display()));
            Ok(())
        }
    }
}

fn print(text: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write it"),
    }
}
