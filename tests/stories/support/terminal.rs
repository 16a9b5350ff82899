//! A terminal of a given size, for a program that draws on one.

use std::fs::File;
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};

use nix::libc::winsize;
use nix::pty::{OpenptyResult, openpty};

use super::soon;

/// What a program said on a terminal, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub status: ExitStatus,
    /// With the escapes that colour it.
    pub text: String,
}

impl Said {
    /// What a person reads: lines without colours.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut plain = String::new();
        let mut parts = self.text.split("\x1b[");
        plain.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let (_, rest) = part.split_once(|char: char| char.is_ascii_alphabetic()).unwrap();
            plain.push_str(rest);
        }
        plain.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect()
    }
}

/// Runs `command` on a terminal of so many columns to its end.
pub(crate) async fn on_terminal(mut command: Command, columns: u16) -> Said {
    let size = winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
    command.stdin(Stdio::null()).stderr(slave.try_clone().unwrap()).stdout(slave);
    let ran = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        // It has the only other end of the terminal, so that its end is an end of what is read.
        drop(command);
        let mut said = Vec::new();
        let mut master = File::from(master);
        let mut buffer = [0; 4096];
        // Linux has an error (EIO) for the end.
        while let Ok(read @ 1..) = master.read(&mut buffer) {
            said.extend_from_slice(&buffer[..read]);
        }
        Said { status: child.wait().unwrap(), text: String::from_utf8(said).unwrap() }
    });
    soon("the command ends", ran).await.unwrap()
}
