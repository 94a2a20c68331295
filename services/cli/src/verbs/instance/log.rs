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
const ANCHOR: usize = 4 << 10;

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
    let mut shown = end_of_log(&context.cloud, &args.name, args.bytes).await?;
    if !args.follow {
        return print(&shown);
    }
    // A character whose bytes have not all come yet is held back.
    shown.truncate(shown.trim_end_matches('\u{fffd}').len());
    print(&shown)?;
    loop {
        tokio::time::sleep(PAUSE).await;
        let mut now = end_of_log(&context.cloud, &args.name, FOLLOWED).await?;
        now.truncate(now.trim_end_matches('\u{fffd}').len());
        print(news(&shown, &now))?;
        if !now.is_empty() {
            shown = now;
        }
    }
}

async fn end_of_log(cloud: &Cloud, name: &str, max_bytes: u32) -> Result<String, Error> {
    let request = GetConsoleLogRequest { id: name.to_owned(), max_bytes };
    let answer = cloud.instances().get_console_log(ask(request)).await;
    Ok(answer.map_err(Error::refused(format!("instance {name}")))?.into_inner().log)
}

/// What `now` has after the end of `shown`; all of it where that end is no longer there (the guest was started anew).
fn news<'a>(shown: &str, now: &'a str) -> &'a str {
    if let Some(rest) = now.strip_prefix(shown) {
        return rest;
    }
    let mut from = shown.len().saturating_sub(ANCHOR);
    while !shown.is_char_boundary(from) {
        from += 1;
    }
    let anchor = &shown[from..];
    now.rfind(anchor).map_or(now, |at| &now[at + anchor.len()..])
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
        assert_eq!(news("old boot", "new"), "new");
        assert_eq!(news("", "new"), "new");
        assert_eq!(news("same", "same"), "");
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
            let visible = &shown[start..];
            prop_assert_eq!(news(visible, &all[start..]), &after);
            prop_assert_eq!(news(&shown, &all), after);
        }
    }
}
