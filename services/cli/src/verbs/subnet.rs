//! `cloud subnet`. A subnet's VPC is the project's default one where none is named.

use clap::{Args, Subcommand};
use cloud_contracts::v1::{CreateSubnetRequest, Subnet, Vpc};

use super::{ls, rm, show, watch};
use crate::{
    args::{Connection, Labels, ListArgs, NameArg, Names, OutputArgs, ShowDeleted, WatchArgs},
    connect::ask,
    context::Context,
    error::Error,
    resources::{Listed, PageOf, subnet},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes one
    Create(Create),
    /// Lists those of a VPC, or of all
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        vpc: InVpc,
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        deleted: ShowDeleted,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Shows one or several
    #[command(visible_alias = "get")]
    Show {
        #[command(flatten)]
        vpc: InVpc,
        #[command(flatten)]
        names: Names,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Prints those of a VPC, then every change as it comes
    Watch {
        #[command(flatten)]
        vpc: InVpc,
        /// Only this one, by name or id
        name: Option<String>,
        #[command(flatten)]
        args: WatchArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Deletes one or several
    #[command(visible_alias = "delete")]
    Rm {
        #[command(flatten)]
        vpc: InVpc,
        #[command(flatten)]
        names: Names,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// `--vpc`.
#[derive(Debug, Clone, Args)]
pub struct InVpc {
    /// The VPC, by name or id [default: the project's default VPC; for `ls`, all]
    #[arg(long)]
    vpc: Option<String>,
}

/// `cloud subnet create`.
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    name: NameArg,
    #[command(flatten)]
    vpc: InVpc,
    /// Its range, within the VPC's, such as 10.0.1.0/24
    #[arg(long)]
    cidr: String,
    /// A resolver that guests are told; may be repeated
    #[arg(long = "dns", value_name = "IP")]
    dns_servers: Vec<String>,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    output: OutputArgs,
}

/// Does one.
pub async fn run(connection: Connection, command: Command) -> Result<(), Error> {
    match command {
        Command::Create(args) => create(connection, args).await,
        Command::Ls { vpc, list, deleted, output } => {
            list_them(&Context::new(connection, output).await?, vpc, list, deleted).await
        }
        Command::Show { vpc, names, output } => {
            let context = Context::new(connection, output).await?;
            show::run::<Subnet>(&context, &vpc.resolve(&context).await?, names).await
        }
        Command::Watch { vpc, name, args, output } => {
            let context = Context::new(connection, output).await?;
            watch::run::<Subnet>(&context, vpc.resolve(&context).await?, name, args).await
        }
        Command::Rm { vpc, names, output } => {
            let context = Context::new(connection, output).await?;
            rm::run::<Subnet>(&context, &vpc.resolve(&context).await?, names).await
        }
    }
}

impl InVpc {
    /// The VPC that was named, or the project's default one.
    async fn resolve(self, context: &Context) -> Result<subnet::InVpc, Error> {
        if let Some(vpc) = self.vpc {
            return Ok(vpc);
        }
        let (vpcs, _) = ls::collect(ListArgs::default(), |page: PageOf| Vpc::page(&context.cloud, page)).await?;
        let default = vpcs.into_iter().find(|vpc| vpc.is_default).map(|vpc| vpc.name);
        default.ok_or_else(|| Error::usage("the project has no default VPC: name one with --vpc"))
    }
}

async fn list_them(context: &Context, vpc: InVpc, list: ListArgs, deleted: ShowDeleted) -> Result<(), Error> {
    let of = async |vpc: String, list: ListArgs| {
        let page = |page: PageOf| {
            let page = PageOf { show_deleted: deleted.show_deleted, ..page };
            subnet::page(&context.cloud, &vpc, page)
        };
        ls::collect::<Subnet, _>(list, page).await
    };
    if let Some(vpc) = vpc.vpc {
        let (items, token) = of(vpc, list).await?;
        return context.out.list(&items, &token);
    }
    if list.limit != 0 || !list.page_token.is_empty() || !list.order_by.is_empty() {
        return Err(Error::usage("--limit, --page-token and --order-by need --vpc: each VPC has a list of its own"));
    }
    let (vpcs, _) = ls::collect(ListArgs::default(), |page: PageOf| Vpc::page(&context.cloud, page)).await?;
    let mut items = Vec::new();
    for vpc in vpcs {
        let all = ListArgs { filter: list.filter.clone(), ..ListArgs::default() };
        items.extend(of(vpc.id, all).await?.0);
    }
    context.out.list(&items, "")
}

async fn create(connection: Connection, args: Create) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let vpc = args.vpc.resolve(&context).await?;
    let name = args.name.into_name();
    let subject = format!("subnet {name}");
    let request = CreateSubnetRequest {
        vpc,
        name,
        cidr: args.cidr,
        dns_servers: args.dns_servers,
        labels: args.labels.into_map(),
        ..Default::default()
    };
    let made = context.cloud.subnets().create_subnet(ask(request)).await.map_err(Error::refused(subject))?;
    context.out.changed(&[made.into_inner()])
}
