//! What a shell wants to know of a program: completions and manual pages, from the definition of its
//! command line.

use std::io::{self, Write};
use std::path::Path;

use clap::{Command, ValueEnum};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

/// Whose completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "they are names of programs")]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// The script that completes what `command` takes.
pub fn completions(shell: Shell, mut command: Command) -> Vec<u8> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

/// The page of `command` to standard output, or, into a directory, its page and one for each of its
/// commands.
///
/// # Errors
/// Standard output or the directory cannot be written.
pub fn man(command: Command, into: Option<&Path>) -> io::Result<()> {
    // `haul help` has no page of its own, in either form.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    match into {
        None => print(&page(command)?),
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            pages(command, dir)
        }
    }
}

fn pages(command: Command, dir: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        pages(subcommand.clone(), dir)?;
    }
    let file = Man::new(command.clone()).get_filename();
    std::fs::write(dir.join(file), page(command)?)
}

/// What clap_mangen makes of it, but for two sections: its synopsis knows no values, and it fills what
/// stands in lines of its own.
fn page(mut command: Command) -> io::Result<Vec<u8>> {
    const SECTION: &str = "\n.SH ";
    let usage = command.render_usage().to_string();
    let after = command.get_after_help().map(ToString::to_string);
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    let page = String::from_utf8(page).map_err(io::Error::other)?;
    let sections: Vec<String> = page
        .split(SECTION)
        .map(|section| match (section.split_once('\n'), &after) {
            (Some(("SYNOPSIS", _)), _) => format!("SYNOPSIS\n{}", synopsis(&usage)),
            (Some(("EXTRA", _)), Some(after)) => format!("NOTES\n{}", notes(after)),
            _ => section.to_owned(),
        })
        .collect();
    Ok((sections.join(SECTION).trim_end().to_owned() + "\n").into_bytes())
}

/// `Usage: haul ls [OPTIONS] [PATH]...`, and what else there is in lines of their own.
fn synopsis(usage: &str) -> String {
    let mut roff = Roff::new();
    for (at, line) in usage.lines().enumerate() {
        if at > 0 {
            roff.control("br", []);
        }
        roff.text([roman(line.trim_start_matches("Usage:").trim())]);
    }
    roff.to_roff().trim_end().to_owned()
}

/// Paragraphs are filled, and lines with blanks in front stay as they are.
fn notes(text: &str) -> String {
    let mut roff = Roff::new();
    let mut is_example = false;
    for line in text.lines() {
        if line.starts_with(' ') != is_example {
            is_example = !is_example;
            roff.control(if is_example { "nf" } else { "fi" }, []);
        }
        match line {
            "" => roff.control("PP", []),
            line => roff.text([roman(line)]),
        };
    }
    if is_example {
        roff.control("fi", []);
    }
    roff.to_roff().trim_end().to_owned()
}

/// Writes what a pipe may not want to hear to the end.
///
/// # Errors
/// Standard output cannot be written, and not because nobody reads it any more.
pub fn print(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
