//! Random messages of any type: mostly as the contract's rules want them, sometimes at their edges, sometimes against them; and damaged bytes.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use cloud_rest_build::options::{FieldRules, required};
use prost::Message as _;
use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

/// How deep messages in messages go.
const DEPTH: usize = 4;

/// Strings that mean something to the target, by the name of the field that takes them. Under `""`: for any field.
#[derive(Debug, Clone, Default)]
pub struct Words(BTreeMap<String, Vec<String>>);

impl Words {
    /// With these words for this field.
    #[must_use]
    pub fn with(mut self, field: &str, words: &[&str]) -> Self {
        self.0.entry(field.to_owned()).or_default().extend(words.iter().map(|&w| w.to_owned()));
        self
    }

    fn of(&self, field: &str) -> &[String] {
        self.0.get(field).or_else(|| self.0.get("")).map_or(&[], Vec::as_slice)
    }
}

/// Strings that have broken something somewhere.
const EVIL: [&str; 16] = [
    "",
    " ",
    "\0",
    "a\0b",
    "..",
    "../../etc/passwd",
    "%00%0a",
    "'; DROP TABLE instances; --",
    "{{7*7}}",
    "\u{feff}a",
    "\u{202e}txt.exe",
    "e\u{301}\u{301}\u{301}",
    "</name><name>x",
    "-rf",
    "unix:/nonesuch",
    "4294967296",
];

/// A message of this type, encoded.
pub fn random(random: &mut StdRng, of: &MessageDescriptor, words: &Words) -> Vec<u8> {
    // A whole message is tame or wild: one wild field is enough to have all of it refused.
    let wild = random.random_bool(0.3);
    Maker { random, words, wild }.message(of, 0).encode_to_vec()
}

struct Maker<'a> {
    random: &'a mut StdRng,
    words: &'a Words,
    wild: bool,
}

impl Maker<'_> {
    fn message(&mut self, of: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        // The agents' contract marks nothing as required, and needs nearly all of it.
        let usual = if of.full_name().starts_with("cloud.agent.") { 0.95 } else { 0.3 };
        for field in of.fields() {
            let rules = FieldRules::read(&field);
            let often = match (required(&field), rules.not_built, self.wild) {
                (true, _, false) => 1.0,
                (true, _, true) => 0.9,
                (_, true, false) => 0.0,
                (_, true, true) => 0.1,
                _ => usual,
            };
            if self.random.random_bool(often) {
                let value = self.field(&field, &rules, depth);
                // A value of another type is refused by the library; `field` makes none.
                message.set_field(&field, value);
            }
        }
        message
    }

    fn field(&mut self, field: &FieldDescriptor, rules: &FieldRules, depth: usize) -> Value {
        if field.is_map() {
            return Value::Map(self.map(field, rules, depth));
        }
        if field.cardinality() == Cardinality::Repeated {
            let count = self.count(rules, depth);
            return Value::List((0..count).map(|_| self.value(field, &field.kind(), rules, depth)).collect());
        }
        self.value(field, &field.kind(), rules, depth)
    }

    fn count(&mut self, rules: &FieldRules, depth: usize) -> usize {
        let most = usize::try_from(rules.max_items.unwrap_or(8)).unwrap_or(8).min(300);
        match self.random.random_range(0..10) {
            0 if self.wild => most + 1,
            1 if self.wild && depth == 0 => 2_000,
            2 => most,
            3 => 0,
            _ => self.random.random_range(1..4),
        }
    }

    fn map(&mut self, field: &FieldDescriptor, rules: &FieldRules, depth: usize) -> HashMap<MapKey, Value> {
        let Kind::Message(entry) = field.kind() else { return HashMap::new() };
        let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        let count = self.count(rules, depth);
        let entries = (0..count).filter_map(|_| {
            let key = match self.value(field, &key.kind(), rules, depth) {
                Value::String(text) => MapKey::String(text),
                Value::I32(number) => MapKey::I32(number),
                Value::I64(number) => MapKey::I64(number),
                Value::U32(number) => MapKey::U32(number),
                Value::U64(number) => MapKey::U64(number),
                Value::Bool(truth) => MapKey::Bool(truth),
                _ => return None,
            };
            Some((key, self.value(field, &value.kind(), rules, depth)))
        });
        entries.collect()
    }

    fn value(&mut self, field: &FieldDescriptor, kind: &Kind, rules: &FieldRules, depth: usize) -> Value {
        match kind {
            Kind::Double => Value::F64(self.float()),
            #[allow(clippy::cast_possible_truncation)]
            Kind::Float => Value::F32(self.float() as f32),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                let number = self.number(rules, i32::MIN.into(), i32::MAX.into());
                Value::I32(i32::try_from(number).unwrap_or(i32::MAX))
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                let number = self.number(rules, i64::MIN.into(), i64::MAX.into());
                Value::I64(i64::try_from(number).unwrap_or(i64::MAX))
            }
            Kind::Uint32 | Kind::Fixed32 => {
                Value::U32(u32::try_from(self.number(rules, 0, u32::MAX.into())).unwrap_or(u32::MAX))
            }
            Kind::Uint64 | Kind::Fixed64 => {
                Value::U64(u64::try_from(self.number(rules, 0, u64::MAX.into())).unwrap_or(u64::MAX))
            }
            Kind::Bool => Value::Bool(self.random.random()),
            Kind::String => Value::String(self.text(field.name(), rules)),
            Kind::Bytes => {
                let text = self.text(field.name(), rules);
                Value::Bytes(Bytes::from(if self.random.random() { text.into_bytes() } else { self.noise(64) }))
            }
            Kind::Enum(of) => {
                let known: Vec<_> = of.values().map(|v| v.number()).collect();
                let strange = [-1, 999, i32::MIN, i32::MAX];
                let choice = if self.wild && self.random.random_bool(0.3) { &strange[..] } else { &known };
                Value::EnumNumber(choice.choose(self.random).copied().unwrap_or_default())
            }
            Kind::Message(of) if depth < DEPTH => Value::Message(self.message(of, depth + 1)),
            Kind::Message(of) => Value::Message(DynamicMessage::new(of.clone())),
        }
    }

    fn float(&mut self) -> f64 {
        [0.0, -0.0, 1.0, f64::NAN, f64::INFINITY, f64::MIN, f64::MIN_POSITIVE]
            .choose(self.random)
            .copied()
            .unwrap_or(0.5)
    }

    fn number(&mut self, rules: &FieldRules, lowest: i128, highest: i128) -> i128 {
        let low = rules.min.map_or(lowest, i128::from);
        let high = rules.max.map_or(highest, i128::from);
        let edges = [low, high, low - 1, high + 1, lowest, highest, 0, 1, -1];
        let number = if self.wild {
            edges.choose(self.random).copied().unwrap_or_default()
        } else {
            self.random.random_range(low.max(0)..=high.max(0).min(low.max(0) + 4))
        };
        number.clamp(lowest, highest)
    }

    fn text(&mut self, field: &str, rules: &FieldRules) -> String {
        let most = usize::try_from(rules.max_len.unwrap_or(64)).unwrap_or(64);
        if !self.wild || self.random.random_bool(0.5) {
            let words = self.words.of(field);
            if !words.is_empty() && self.random.random_bool(0.8) {
                return words.choose(self.random).cloned().unwrap_or_default();
            }
            return self.label(most.min(24));
        }
        match self.random.random_range(0..8) {
            0 => "x".repeat(most),
            1 => "x".repeat(most + 1),
            2 => "é".repeat(most),
            3 => "x".repeat(70_000),
            4 => uuid::Uuid::from_u128(self.random.random()).to_string(),
            5 => String::from_utf8_lossy(&self.noise(40)).into_owned(),
            _ => EVIL.choose(self.random).copied().unwrap_or_default().to_owned(),
        }
    }

    /// What the names of this cloud look like.
    fn label(&mut self, most: usize) -> String {
        let length = self.random.random_range(1..=most.max(1));
        let rest = (1..length).map(|_| *b"abcdefghijklmnopqrstuvwxyz0123456789".choose(self.random).unwrap_or(&b'0'));
        std::iter::once(b'f').chain(rest).map(char::from).collect()
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.random.random_range(0..most)];
        self.random.fill(&mut bytes[..]);
        bytes
    }
}

/// Damages an encoded message: bits flipped, bytes missing or inserted, text that is not UTF-8, or nothing but noise.
pub fn damage(random: &mut StdRng, bytes: &mut Vec<u8>) {
    let at = random.random_range(0..=bytes.len());
    match random.random_range(0..6) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, random.random()),
        2 => {
            let mut noise = vec![0; random.random_range(0..200)];
            random.fill(&mut noise[..]);
            *bytes = noise;
        }
        // Field 1 as text that is not UTF-8.
        3 => bytes.extend([0x0a, 2, 0xff, 0xfe]),
        // Field 1 as text that is longer than the message.
        4 => bytes.extend([0x0a, 0xff, 0xff, 0xff, 0x7f]),
        _ => {
            for _ in 0..random.random_range(1..4) {
                if !bytes.is_empty() {
                    let at = random.random_range(0..bytes.len());
                    bytes[at] ^= 1 << random.random_range(0..8);
                }
            }
        }
    }
}
