//! What customers can do in the shop, as trees of calls between its services, and what goes wrong how often.

use std::ops::Range;

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

use super::service::ServiceName;
use super::service::ServiceName::{Cart, Checkout, Inventory, Payment, Shipping};

/// What a trace is to whoever reads traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Some span failed.
    Error,
    /// Some call crawled.
    Slow,
    /// All is well.
    Ordinary,
    /// A probe.
    Health,
}

/// One call of a service to another, or to a store.
#[derive(Debug)]
pub struct Step {
    /// What is called; [`Trouble`] finds a step by it.
    pub name: &'static str,
    /// Who is called.
    pub what: What,
    /// The most work that it is beside its calls.
    pub work_ms: u64,
    /// What it calls.
    pub calls: &'static [Step],
    /// Whether the calls go out together.
    pub at_once: bool,
}

/// Who is called.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// The shop, by a customer; the HTTP method.
    Request(&'static str),
    /// Another service: a span on either side.
    Rpc(ServiceName),
    /// A database or a cache of the service itself.
    Query(&'static str),
    /// Somebody outside.
    Outside(&'static str),
}

/// What goes wrong on the way, at the steps of that name.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// All is well.
    Nothing,
    /// The step fails, and with it all that called it.
    Fails(&'static str),
    /// The step takes [`CRAWL_MS`] longer.
    Crawls(&'static str),
}

/// How often customers do what, out of 100.
pub const JOURNEYS: [(u32, Kind, &Step, Trouble); 10] = [
    (30, Kind::Ordinary, &HOME, Trouble::Nothing),
    (27, Kind::Ordinary, &PRODUCT, Trouble::Nothing),
    (12, Kind::Ordinary, &ADD_TO_CART, Trouble::Nothing),
    (8, Kind::Ordinary, &CHECKOUT, Trouble::Nothing),
    (9, Kind::Health, &HEALTH, Trouble::Nothing),
    (4, Kind::Error, &CHECKOUT, Trouble::Fails("POST /charges")),
    (3, Kind::Error, &ADD_TO_CART, Trouble::Fails("UPDATE stock")),
    (3, Kind::Slow, &CHECKOUT, Trouble::Crawls("GET /quotes")),
    (2, Kind::Slow, &HOME, Trouble::Crawls("SELECT products")),
    (2, Kind::Slow, &PRODUCT, Trouble::Crawls("HGETALL cart")),
];

/// More than the 500 ms from which the demo's manifest calls a trace slow, less than the demo waits for it.
pub const CRAWL_MS: Range<u64> = 700..1_100;

const READ_CART: Step = query("redis", "HGETALL cart", 1);
const UPDATE_STOCK: Step = query("postgresql", "UPDATE stock", 5);
const CHARGE: Step = outside("acquirer.example", "POST /charges", 30);
const QUOTE: Step = outside("carrier.example", "GET /quotes", 20);
const PARCEL: Step = outside("carrier.example", "POST /parcels", 15);

const HEALTH: Step = request("GET", "/healthz", 1, &[]);

const HOME: Step = request("GET", "/", 4, &HOME_PARTS).at_once();
const HOME_PARTS: [Step; 2] = [
    rpc(Inventory, "ListProducts", 3, &[query("postgresql", "SELECT products", 8)]),
    rpc(Cart, "CountItems", 1, &[query("redis", "HLEN cart", 1)]),
];

const PRODUCT: Step = request("GET", "/product/{id}", 3, &PRODUCT_PARTS).at_once();
const PRODUCT_PARTS: [Step; 3] = [
    rpc(Inventory, "GetProduct", 2, &[query("postgresql", "SELECT product", 4)]),
    rpc(Cart, "GetCart", 1, &[READ_CART]),
    rpc(Shipping, "EstimateDelivery", 2, &[]),
];

const ADD_TO_CART: Step = request("POST", "/cart", 3, &[rpc(Cart, "AddItem", 2, &ADD_ITEM)]);
const ADD_ITEM: [Step; 2] =
    [rpc(Inventory, "Reserve", 2, &[UPDATE_STOCK]), query("redis", "HSET cart", 1)];

const CHECKOUT: Step = request("POST", "/checkout", 5, &[rpc(Checkout, "PlaceOrder", 6, &ORDER)]);
const ORDER: [Step; 6] = [
    rpc(Cart, "GetCart", 1, &[READ_CART]),
    rpc(Inventory, "ReserveAll", 2, &[UPDATE_STOCK, UPDATE_STOCK, UPDATE_STOCK]).at_once(),
    rpc(Shipping, "Quote", 2, &[QUOTE]),
    rpc(Payment, "Charge", 3, &[CHARGE]),
    query("postgresql", "INSERT orders", 6),
    rpc(Shipping, "Ship", 2, &[PARCEL]),
];

const fn request(
    method: &'static str,
    route: &'static str,
    work_ms: u64,
    calls: &'static [Step],
) -> Step {
    Step { name: route, what: What::Request(method), work_ms, calls, at_once: false }
}

const fn rpc(to: ServiceName, name: &'static str, work_ms: u64, calls: &'static [Step]) -> Step {
    Step { name, what: What::Rpc(to), work_ms, calls, at_once: false }
}

const fn query(system: &'static str, name: &'static str, work_ms: u64) -> Step {
    Step { name, what: What::Query(system), work_ms, calls: &[], at_once: false }
}

const fn outside(host: &'static str, name: &'static str, work_ms: u64) -> Step {
    Step { name, what: What::Outside(host), work_ms, calls: &[], at_once: false }
}

// === impl Kind ===

impl Kind {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Error, Self::Slow, Self::Ordinary, Self::Health];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Slow => "slow",
            Self::Ordinary => "ordinary",
            Self::Health => "health",
        }
    }
}

// === impl Step ===

impl Step {
    const fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// The kind of its span; of the caller's when there are two.
    pub fn kind_of_span(&self) -> SpanKind {
        match self.what {
            What::Request(_) => SpanKind::Server,
            What::Rpc(_) | What::Query(_) | What::Outside(_) => SpanKind::Client,
        }
    }

    /// The name of its span, on both sides.
    pub fn span_name(&self) -> String {
        match self.what {
            What::Request(method) => format!("{method} {}", self.name),
            What::Rpc(to) => format!("{}/{}", to.name(), self.name),
            What::Query(_) | What::Outside(_) => self.name.to_owned(),
        }
    }

    /// What its spans say beside the name, under the names of the semantic conventions.
    pub fn attributes(&self) -> Vec<KeyValue> {
        match self.what {
            What::Request(method) => vec![
                KeyValue::new("http.request.method", method),
                KeyValue::new("http.route", self.name),
                KeyValue::new("url.scheme", "https"),
                KeyValue::new("server.address", "shop.example"),
                KeyValue::new("client.address", format!("203.0.113.{}", fastrand::u8(1..255))),
                KeyValue::new("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)"),
                KeyValue::new("session.id", format!("{:016x}", fastrand::u64(..))),
            ],
            What::Rpc(to) => vec![
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", self.name),
                KeyValue::new("server.address", to.name()),
                KeyValue::new("server.port", 8080),
                KeyValue::new("network.transport", "tcp"),
            ],
            What::Query(system) => vec![
                KeyValue::new("db.system.name", system),
                KeyValue::new("db.query.summary", self.name),
                KeyValue::new("db.namespace", "shop"),
                KeyValue::new("server.address", format!("{system}.shop.svc")),
            ],
            What::Outside(host) => vec![
                KeyValue::new("server.address", host),
                KeyValue::new("server.port", 443),
                KeyValue::new("url.scheme", "https"),
                KeyValue::new("network.protocol.version", "2"),
            ],
        }
    }
}
