//! What a shell wants to know of a program: completions and manual pages, from the definition of its
//! command line.

use std::io::{self, Write};
use std::path::Path;

use clap::{Command, ValueEnum};

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
    let command = command.disable_help_subcommand(true);
    match into {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            print(&page)
        }
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            clap_mangen::generate_to(command, dir)
        }
    }
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
