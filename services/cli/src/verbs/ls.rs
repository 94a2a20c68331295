//! `ls`: all pages of a list, or as much of it as was asked for.

use std::future::Future;

use crate::{
    args::{ListArgs, ShowDeleted},
    context::Context,
    error::Error,
    resources::{Listed, Page, PageOf, Resource},
};

/// How much to ask for at a time.
const PAGE: u32 = 200;

/// Prints a list.
pub async fn run<R: Listed>(context: &Context, args: ListArgs, deleted: ShowDeleted) -> Result<(), Error> {
    let page = |page: PageOf| R::page(&context.cloud, PageOf { show_deleted: deleted.show_deleted, ..page });
    let (items, token) = collect(args, page).await?;
    context.cloud.warn_of_unused_id();
    context.out.list(&items, &token)
}

/// Follows the pages until the end or `args.limit`; answers with the token of what is left.
pub async fn collect<R, F>(args: ListArgs, page: impl Fn(PageOf) -> F) -> Result<(Vec<R>, String), Error>
where
    R: Resource,
    F: Future<Output = Page<R>>,
{
    let mut items: Vec<R> = Vec::new();
    let mut token = args.page_token;
    loop {
        let left = match args.limit {
            0 => PAGE,
            limit => limit.saturating_sub(u32::try_from(items.len()).unwrap_or(u32::MAX)),
        };
        let size = i32::try_from(left.min(PAGE)).unwrap_or(i32::MAX);
        let (filter, order_by) = (args.filter.clone(), args.order_by.clone());
        let asked = PageOf { size, token: token.clone(), show_deleted: false, filter, order_by };
        let (mut more, next) = page(asked).await.map_err(Error::refused(R::PLURAL))?;
        items.append(&mut more);
        let full = args.limit != 0 && items.len() >= args.limit as usize;
        // A server that answers with the token it was asked with would go round for ever.
        if full || next.is_empty() || next == token {
            return Ok((items, next));
        }
        token = next;
    }
}
