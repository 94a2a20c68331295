//! The terminal in raw mode: every key goes to the guest, Ctrl-C too.

use std::io::{self, IsTerminal, Stdin};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Raw mode on stdin, until it is dropped.
pub struct RawMode {
    stdin: Stdin,
    before: Termios,
}

impl RawMode {
    /// Enters it; `None` where stdin is no terminal.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { stdin, before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Flush: what was typed for the guest must not be run by the shell.
        if let Err(error) = tcsetattr(&self.stdin, OptionalActions::Flush, &self.before) {
            eprintln!("cannot restore the terminal ({error}): type `reset`");
        }
    }
}
