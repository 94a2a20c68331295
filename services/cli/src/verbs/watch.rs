//! `watch`: what there is, then every change, until it is interrupted.

use crate::{
    args::WatchArgs,
    context::Context,
    error::Error,
    following::{Following, Trouble},
    resources::follow::{Begin, Follow, Told},
};

/// Prints the current state, then each change as it comes.
pub async fn run<R: Follow>(context: &Context, of: R::Of, id: Option<String>, args: WatchArgs) -> Result<(), Error> {
    let begin = Begin { resume_token: args.resume_token, id: id.clone().unwrap_or_default() };
    let subject = id.map_or_else(|| R::PLURAL.to_owned(), |id| format!("{} {id}", R::KIND));
    let mut lines = context.out.lines::<R>();
    // The current state is printed together, so that its columns fit.
    let mut current: Option<Vec<Told<R>>> = begin.resume_token.is_empty().then(Vec::new);
    let mut following = Following::<R>::new(&context.cloud, of, begin);
    let trouble = |trouble| match trouble {
        Trouble::Away => eprintln!("{subject}: the gateway does not answer; trying again"),
        Trouble::Anew => eprintln!("{subject}: changes were missed; beginning anew"),
    };
    loop {
        let told = following.next(trouble).await.map_err(Error::refused(subject.clone()))?;
        match (told.change, &mut current) {
            // Once again from the beginning: what came of it before is void.
            ("CURRENT", None) => current = Some(vec![told]),
            ("SYNCED", _) => {
                let mut all = current.take().unwrap_or_default();
                all.push(told);
                lines.print(&all)?;
            }
            (_, Some(current)) => current.push(told),
            (_, None) => lines.print(&[told])?,
        }
    }
}
