//! A package's services as the generators see them: methods with their options and routes.
use anyhow::{Context, Result, bail, ensure};
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, ServiceDescriptor};

use crate::{
    options::{HttpRule, MethodOptions, http_rules},
    template::Template,
};

/// The services of a package.
pub struct Api {
    /// In the order of files and of declaration.
    pub services: Vec<Service>,
}

/// One service.
pub struct Service {
    /// What it is in the contract.
    pub descriptor: ServiceDescriptor,
    /// Its methods, those without routes included.
    pub methods: Vec<Method>,
}

/// One method.
pub struct Method {
    /// What it is in the contract.
    pub descriptor: MethodDescriptor,
    /// Our own options.
    pub options: MethodOptions,
    /// Its routes: none for methods that are not built, and those whose client streams.
    pub routes: Vec<Route>,
}

/// One route.
pub struct Route {
    /// `get`, `put`, `post`, `delete` or `patch`.
    pub verb: String,
    /// The path, without the version in front.
    pub template: Template,
    /// What the body is.
    pub body: Body,
}

/// What the body of a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Nothing: the other fields are query parameters.
    None,
    /// Every field that is not in the path; there are no query parameters.
    Whole,
    /// One field; the others are query parameters.
    Field(String),
}

impl Api {
    /// Reads the services of a package.
    ///
    /// # Errors
    /// Bindings that cannot be served, naming the method.
    pub fn read(pool: &DescriptorPool, package: &str) -> Result<Self> {
        let mut services = Vec::new();
        for descriptor in pool.services().filter(|service| service.package_name() == package) {
            let methods =
                descriptor.methods().map(|method| Method::read(method.clone()).context(method.full_name().to_owned()));
            let methods = methods.collect::<Result<_>>()?;
            services.push(Service { descriptor, methods });
        }
        Ok(Api { services })
    }

    /// Every method that has a route, with its service.
    pub fn routed(&self) -> impl Iterator<Item = (&Service, &Method)> {
        let all = self.services.iter().flat_map(|service| service.methods.iter().map(move |method| (service, method)));
        all.filter(|(_, method)| !method.routes.is_empty())
    }
}

impl Method {
    fn read(descriptor: MethodDescriptor) -> Result<Self> {
        let options = MethodOptions::read(&descriptor);
        let served = !options.not_built && !descriptor.is_client_streaming();
        for message in [descriptor.input(), descriptor.output()] {
            let own = !message.full_name().starts_with("google.protobuf.");
            ensure!(own, "{} cannot grow fields: use a message of its own", message.full_name());
        }
        let rules = if served { http_rules(&descriptor) } else { Vec::new() };
        let routes = rules.iter().map(|rule| Route::read(rule, &descriptor.input())).collect::<Result<_>>()?;
        Ok(Method { descriptor, options, routes })
    }

    /// The HTTP status of success.
    #[must_use]
    pub fn success(&self) -> u32 {
        if self.options.success_code == 0 { 200 } else { self.options.success_code }
    }
}

impl Route {
    fn read(rule: &HttpRule, input: &MessageDescriptor) -> Result<Self> {
        let known = ["get", "put", "post", "delete", "patch"].contains(&rule.verb.as_str());
        ensure!(known, "the HTTP verb `{}` is not served", rule.verb);
        ensure!(rule.response_body.is_empty(), "response_body is not served");
        let template = Template::parse(&rule.path)?;
        for param in template.params() {
            let field = field(input, param)?;
            ensure!(field.kind() == Kind::String && !field.is_list(), "the path parameter `{param}` is not a string");
        }
        let body = match rule.body.as_str() {
            "" => Body::None,
            "*" => Body::Whole,
            name => {
                let field = field(input, name)?;
                ensure!(matches!(field.kind(), Kind::Message(_)), "the body `{name}` is not a message");
                Body::Field(name.to_owned())
            }
        };
        if body != Body::None && matches!(rule.verb.as_str(), "get" | "delete") {
            bail!("{} has a body, which proxies drop", rule.verb.to_uppercase());
        }
        Ok(Route { verb: rule.verb.clone(), template, body })
    }
}

/// The field at a dotted path.
///
/// # Errors
/// A field that is not there.
pub fn field(message: &MessageDescriptor, path: &str) -> Result<FieldDescriptor> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let field_of = message.get_field_by_name(name);
    let found = field_of.with_context(|| format!("{} has no field `{name}`", message.full_name()))?;
    match (rest, found.kind()) {
        (None, _) => Ok(found),
        (Some(rest), Kind::Message(inner)) if !found.is_list() => field(&inner, rest),
        _ => bail!("`{name}` of {} is not a message", message.full_name()),
    }
}

/// A query parameter: a field that is neither in the path nor in the body.
pub struct Parameter {
    /// The dotted path of proto names.
    pub path: String,
    /// The same in camel case.
    pub camel: String,
    /// The field.
    pub field: FieldDescriptor,
}

/// The query parameters of a route. Messages give their fields, dotted; maps, repeated messages and messages
/// within themselves cannot be in a query.
#[must_use]
pub fn parameters(input: &MessageDescriptor, route: &Route) -> Vec<Parameter> {
    let mut found = Vec::new();
    if route.body != Body::Whole {
        collect(input, "", "", &mut vec![input.full_name().to_owned()], &mut found);
    }
    let taken = |path: &str| {
        let in_body = match &route.body {
            Body::Field(body) => path == body || path.starts_with(&format!("{body}.")),
            _ => false,
        };
        in_body || route.template.params().any(|param| param == path)
    };
    found.retain(|parameter| !taken(&parameter.path));
    found
}

fn collect(message: &MessageDescriptor, path: &str, camel: &str, above: &mut Vec<String>, found: &mut Vec<Parameter>) {
    for field in message.fields() {
        let (path, camel) = (format!("{path}{}", field.name()), format!("{camel}{}", field.json_name()));
        match field.kind() {
            _ if field.is_map() => {}
            Kind::Message(inner) if !inner.full_name().starts_with("google.protobuf.") => {
                if !field.is_list() && !above.iter().any(|name| name == inner.full_name()) {
                    above.push(inner.full_name().to_owned());
                    collect(&inner, &format!("{path}."), &format!("{camel}."), above, found);
                    above.pop();
                }
            }
            _ => found.push(Parameter { path, camel, field }),
        }
    }
}
