//! `cloud instance log`. The gateway sends the log's end; to follow it, the end is asked for again and again and what is new is printed.

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::Args;
use cloud_contracts::v1::GetConsoleLogRequest;

use crate::{
    args::{Connection, OutputArgs},
    connect::{Cloud, ask},
    context::Context,
    error::Error,
};

/// How often a log that is followed is looked at.
const PAUSE: Duration = Duration::from_millis(500);
/// How much of it: more than a guest writes in that time.
const FOLLOWED: u32 = 256 << 10;
/// How much of what was shown last is looked for in the next answer.
const ANCHOR: u32 = 4 << 10;

/// Its arguments.
#[derive(Debug, Args)]
pub struct Log {
    /// The instance, by name or id
    name: String,
    /// Go on printing as the guest writes, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// At most so many bytes from the end [default: 65536]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    bytes: u32,
}

/// Prints the log.
pub async fn run(connection: Connection, args: Log) -> Result<(), Error> {
    let context = Context::new(connection, OutputArgs::default()).await?;
    if !args.follow {
        return print(&end_of_log(&context.cloud, &args.name, args.bytes).await?);
    }
    let mut shown = end_of_log(&context.cloud, &args.name, FOLLOWED).await?;
    print(tail(&shown, args.bytes))?;
    loop {
        tokio::time::sleep(PAUSE).await;
        let now = end_of_log(&context.cloud, &args.name, FOLLOWED).await?;
        // The gateway cuts at bytes, which may leave a few less in whole characters.
        let cut = now.len() + 8 >= FOLLOWED as usize;
        print(news(&shown, &now, cut))?;
        if !now.is_empty() {
            shown = now;
        }
    }
}

/// About the last `bytes` of a text; 0 means what the gateway takes it to mean.
fn tail(text: &str, bytes: u32) -> &str {
    let bytes = if bytes == 0 { 65_536 } else { bytes as usize };
    let mut from = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

async fn end_of_log(cloud: &Cloud, name: &str, max_bytes: u32) -> Result<String, Error> {
    let request = GetConsoleLogRequest { id: name.to_owned(), max_bytes };
    let answer = cloud.instances().get_console_log(ask(request)).await;
    let mut log = answer.map_err(Error::refused(format!("instance {name}")))?.into_inner().log;
    // A character whose bytes have not all come yet: the next look has it whole.
    log.truncate(log.trim_end_matches('\u{fffd}').len());
    Ok(log)
}

/// What `now` has after the end of `shown`. A log that begins otherwise, and was not `cut` at its front, is that of another start: all
/// of it is new.
fn news<'a>(shown: &str, now: &'a str, cut: bool) -> &'a str {
    if let Some(rest) = now.strip_prefix(shown) {
        return rest;
    }
    let anchor = tail(shown, ANCHOR);
    match now.rfind(anchor) {
        Some(at) if cut => &now[at + anchor.len()..],
        _ => now,
    }
}

/// As the guest wrote it, colours and all: that is what a console shows.
fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::output)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_new_log_is_shown_whole() {
        assert_eq!(news("login: ", "boot\nlogin: ", false), "boot\nlogin: ");
        assert_eq!(news("", "new", false), "new");
        assert_eq!(news("same", "same", false), "");
        assert_eq!(news("gone", "all of it is new", true), "all of it is new");
    }

    #[test]
    fn tails_are_whole_characters() {
        assert_eq!((tail("abc", 2), tail("aéb", 2), tail("abc", 9), tail("abc", 0)), ("bc", "b", "abc", "abc"));
    }

    proptest! {
        /// Whatever was written, however it was cut at the front: shown and news together are the log.
        #[test]
        fn nothing_is_lost_or_repeated(before in "[a-zé\n]{0,200}", after in "[0-9é\n]{0,200}", cut in 0usize..100) {
            let all = format!("{before}|{after}");
            let shown = format!("{before}|");
            let mut start = cut.min(before.len().saturating_sub(50));
            while !all.is_char_boundary(start) {
                start += 1;
            }
            prop_assert_eq!(news(&shown[start..], &all[start..], true), &after);
            prop_assert_eq!(news(&shown, &all, false), after);
        }

        /// The front moves on while the end grows.
        #[test]
        fn what_was_cut_away_is_repeated_rather_than_lost(before in "[a-z\n]{100,200}", after in "[0-9\n]{1,90}") {
            let shown = format!("{before}|");
            let all = format!("{shown}{after}");
            let keep = shown.len();
            let news = news(&shown, &all[all.len() - keep..], true);
            // What is left of the old end is too little to be told from the new: all is shown, nothing is lost.
            prop_assert!(news.ends_with(&after));
        }
    }
}
