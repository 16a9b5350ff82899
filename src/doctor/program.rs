//! Execution of other programs.

use std::io::{ErrorKind, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The timeout of a program. They are all expected to be quick.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST: u64 = 16 << 20;

/// The result of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// The reason why a program gave no output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silent {
    Failed,
    NotInstalled,
}

/// Runs `program` in the C locale, with a timeout of ten seconds. Also finds programs in `sbin`
/// directories, for users without these in PATH.
pub(super) fn ask(program: &str, arguments: &[&str]) -> Result<Said, Silent> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Silent::NotInstalled,
        _ => Silent::Failed,
    })?;
    let (said, heard) = mpsc::channel();
    let outputs = (child.stdout.take(), child.stderr.take());
    thread::spawn(move || {
        let stdout = text(outputs.0);
        let _ = said.send((stdout, text(outputs.1)));
    });
    match heard.recv_timeout(PATIENCE) {
        Ok((stdout, stderr)) => {
            let success = child.wait().is_ok_and(|status| status.success());
            Ok(Said { success, stdout, stderr })
        }
        Err(_) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(Silent::Failed)
        }
    }
}

fn text(output: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(output) = output {
        let _ = output.take(MOST).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_heard_and_a_missing_one_is_not_an_error() {
        let said = ask("sh", &["-c", "echo out; echo $LC_ALL >&2; exit 3"]).unwrap();
        let want = Said { success: false, stdout: "out\n".into(), stderr: "C\n".into() };
        assert_eq!(said, want);
        assert_eq!(ask("no-such-program-anywhere", &[]), Err(Silent::NotInstalled));
    }
}
