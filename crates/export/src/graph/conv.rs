//! Operators over places: convolutions, pooling, and norms over channels. Values are `[batch, channels, place…]`.

use weighbridge_formats::{Kind, Result};

use super::value::{Dim, Value, spell};
use super::{Attribute, GraphBuilder};

/// How a window moves over the places: one number a dimension, or one for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The sizes of the window; empty where a weight says them.
    pub size: Vec<u64>,
    /// How far it moves at a time.
    pub stride: Vec<u64>,
    /// How many places are added at each end.
    pub padding: Vec<u64>,
    /// The distance of the places that it sees.
    pub dilation: Vec<u64>,
    /// Whether a window that reaches beyond the end counts.
    pub ceil: bool,
}

impl Default for Window {
    /// A window that moves by 1, without padding.
    fn default() -> Self {
        Self { size: Vec::new(), stride: vec![1], padding: vec![0], dilation: vec![1], ceil: false }
    }
}

/// The window's numbers for each dimension.
struct Places {
    size: Vec<u64>,
    stride: Vec<u64>,
    padding: Vec<u64>,
    dilation: Vec<u64>,
    ceil: bool,
}

/// The most channels of a norm that has no weights of its own.
const CHANNELS: u64 = 1 << 20;

/// The most that a number of a window may be.
const MOST: u64 = 1 << 31;

impl Window {
    fn places(&self, rank: usize) -> Option<Places> {
        let all = |numbers: &[u64], least: u64| -> Option<Vec<u64>> {
            if numbers.iter().any(|n| !(least..=MOST).contains(n)) {
                return None;
            }
            match numbers {
                [one] => Some(vec![*one; rank]),
                numbers => (numbers.len() == rank).then(|| numbers.to_vec()),
            }
        };
        Some(Places {
            size: all(&self.size, 1)?,
            stride: all(&self.stride, 1)?,
            padding: all(&self.padding, 0)?,
            dilation: all(&self.dilation, 1)?,
            ceil: self.ceil,
        })
    }
}

impl Places {
    /// The size that a dimension has after the window went over it.
    fn after(&self, i: usize, dim: &Dim) -> Option<Dim> {
        let (stride, padding) = (self.stride[i], self.padding[i]);
        let reach = self.dilation[i] * (self.size[i] - 1) + 1;
        let Some(size) = dim.fixed() else {
            // Only a window that keeps the size leaves a name as it is.
            return Some(match (stride, 2 * padding + 1 == reach) {
                (1, true) => dim.clone(),
                _ if self.ceil => {
                    Dim::symbol(format!("ceil(({dim} + {} - {reach}) / {stride}) + 1", 2 * padding))
                }
                _ => Dim::symbol(format!("floor(({dim} + {} - {reach}) / {stride}) + 1", 2 * padding)),
            });
        };
        let room = size.checked_add(2 * padding)?.checked_sub(reach)?;
        let mut steps = if self.ceil { room.div_ceil(stride) } else { room / stride };
        // The last window begins inside the input or the padding before it.
        if self.ceil && steps.checked_mul(stride)? >= size + padding {
            steps -= 1;
        }
        Some(Dim::Fixed(steps + 1))
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let ints = |numbers: &[u64]| Attribute::Ints(numbers.iter().map(|&n| n as i64).collect());
        let both = [&self.padding[..], &self.padding[..]].concat();
        vec![
            ("kernel_shape", ints(&self.size)),
            ("strides", ints(&self.stride)),
            ("pads", ints(&both)),
            ("dilations", ints(&self.dilation)),
        ]
    }
}

impl GraphBuilder<'_> {
    /// The convolution of `[batch, in, place…]` by the weight `NAME.weight` of `[out, in / groups, size…]`, and by
    /// `NAME.bias` where there is one. The window's sizes are the weight's.
    ///
    /// # Errors
    /// As [`GraphBuilder::weight`]; `Mismatch` for channels that differ and windows that do not fit.
    pub fn conv(&mut self, x: &Value, name: &str, window: &Window, groups: u64) -> Result<Value> {
        let (weight, bias, shape) = self.kernel("Conv", x, name)?;
        let channels = self.channels("Conv", x)?;
        if groups == 0 || shape[1].checked_mul(groups) != Some(channels) || shape[0] % groups != 0 {
            let what = format!("Conv of {} by {name} of {shape:?} in {groups} groups", x.describe());
            return Err(self.error(what));
        }
        let window = Window { size: shape[2..].to_vec(), ..window.clone() };
        let places = self.places("Conv", x, &window)?;
        let mut attributes = places.attributes();
        attributes.push(("group", Attribute::Int(groups as i64)));
        let out = self.moved("Conv", x, Dim::Fixed(shape[0]), &places)?;
        self.of_three("Conv", [x, &weight], bias.as_ref(), attributes, out)
    }

    /// The transposed convolution by `NAME.weight` of `[in, out / groups, size…]`; `more` places are added at the ends.
    ///
    /// # Errors
    /// As [`GraphBuilder::conv`].
    pub fn conv_transpose(
        &mut self,
        x: &Value,
        name: &str,
        window: &Window,
        groups: u64,
        more: &[u64],
    ) -> Result<Value> {
        let (weight, bias, shape) = self.kernel("ConvTranspose", x, name)?;
        let channels = self.channels("ConvTranspose", x)?;
        let wrong = format!("ConvTranspose of {} by {name} of {shape:?} in {groups} groups", x.describe());
        if groups == 0 || shape[0] != channels || channels % groups != 0 {
            return Err(self.error(wrong));
        }
        let window = Window { size: shape[2..].to_vec(), ..window.clone() };
        let places = self.places("ConvTranspose", x, &window)?;
        let more = match more {
            [one] => vec![*one; x.rank() - 2],
            more => more.to_vec(),
        };
        if more.len() != x.rank() - 2 || more.iter().any(|&n| n > MOST) {
            return Err(self.error(wrong));
        }
        let mut out = vec![x.shape()[0].clone(), Dim::Fixed(shape[1].saturating_mul(groups))];
        for (i, dim) in x.shape()[2..].iter().enumerate() {
            let reach = places.dilation[i] * (places.size[i] - 1) + more[i] + 1;
            let grown = match dim.fixed() {
                Some(n) => n
                    .checked_sub(1)
                    .and_then(|n| {
                        n.checked_mul(places.stride[i])?
                            .checked_add(reach)?
                            .checked_sub(2 * places.padding[i])
                    })
                    .map(Dim::Fixed),
                None => {
                    let (stride, padding) = (places.stride[i], 2 * places.padding[i]);
                    Some(Dim::symbol(format!("({dim} - 1) * {stride} + {reach} - {padding}")))
                }
            };
            out.push(grown.ok_or_else(|| self.error(&wrong))?);
        }
        let mut attributes = places.attributes();
        attributes.push(("group", Attribute::Int(groups as i64)));
        attributes.push(("output_padding", Attribute::Ints(more.iter().map(|&n| n as i64).collect())));
        self.of_three("ConvTranspose", [x, &weight], bias.as_ref(), attributes, out)
    }

    /// The largest element of each window.
    ///
    /// # Errors
    /// `Mismatch` for windows that do not fit.
    pub fn max_pool(&mut self, x: &Value, window: &Window) -> Result<Value> {
        let places = self.places("MaxPool", x, window)?;
        let mut attributes = places.attributes();
        attributes.push(("ceil_mode", Attribute::Int(window.ceil.into())));
        let shape = self.moved("MaxPool", x, x.shape()[1].clone(), &places)?;
        self.node("MaxPool", &[x], attributes, x.dtype(), shape)
    }

    /// The mean of each window; `padded` counts places that were added.
    ///
    /// # Errors
    /// `Mismatch` for windows that do not fit, and those that have gaps.
    pub fn average_pool(&mut self, x: &Value, window: &Window, padded: bool) -> Result<Value> {
        let places = self.places("AveragePool", x, window)?;
        let mut attributes = places.attributes();
        let dilation = attributes.pop();
        if places.dilation.iter().any(|&d| d != 1) || dilation.is_none() {
            return Err(self.error("AveragePool has no dilation"));
        }
        attributes.push(("ceil_mode", Attribute::Int(window.ceil.into())));
        attributes.push(("count_include_pad", Attribute::Int(padded.into())));
        let shape = self.moved("AveragePool", x, x.shape()[1].clone(), &places)?;
        self.node("AveragePool", &[x], attributes, x.dtype(), shape)
    }

    /// The mean of all places: each becomes one.
    ///
    /// # Errors
    /// `Mismatch` for a value without places.
    pub fn global_average_pool(&mut self, x: &Value) -> Result<Value> {
        self.channels("GlobalAveragePool", x)?;
        let mut shape = x.shape()[..2].to_vec();
        shape.resize(x.rank(), Dim::Fixed(1));
        self.node("GlobalAveragePool", &[x], vec![], x.dtype(), shape)
    }

    /// The norm of each channel by a mean and variance that were learned: `NAME.weight`, `NAME.bias`,
    /// `NAME.running_mean`, `NAME.running_var`; without the first two the norm alone.
    ///
    /// # Errors
    /// As [`GraphBuilder::weight`].
    pub fn batch_norm(&mut self, x: &Value, name: &str, epsilon: f32) -> Result<Value> {
        let channels = self.channels("BatchNormalization", x)?;
        let (scale, shift) = self.affine(name, channels)?;
        let mean = self.weight(&format!("{name}.running_mean"), &[channels])?;
        let variance = self.weight(&format!("{name}.running_var"), &[channels])?;
        let attributes = vec![("epsilon", Attribute::Float(epsilon))];
        let inputs = [x, &scale, &shift, &mean, &variance];
        self.node("BatchNormalization", &inputs, attributes, x.dtype(), x.shape().to_vec())
    }

    /// The norm of groups of channels and all their places, then scaled and shifted by channel. One group a channel is
    /// the norm of instances.
    ///
    /// # Errors
    /// As [`GraphBuilder::weight`]; `Mismatch` where groups do not divide the channels.
    pub fn group_norm(&mut self, x: &Value, name: &str, groups: u64, epsilon: f32) -> Result<Value> {
        let channels = self.channels("GroupNormalization", x)?;
        if groups == 0 || channels % groups != 0 {
            return Err(self.error(format!("{groups} groups of {channels} channels")));
        }
        let (scale, shift) = self.affine(name, channels)?;
        // GroupNormalization came late, and with other meanings at first: an instance is a group of its own here.
        let (ones, zeros) = (self.filled(groups, 1.0)?, self.filled(groups, 0.0)?);
        let grouped = self.reshape(x, &[0, groups as i64, -1])?;
        let attributes = vec![("epsilon", Attribute::Float(epsilon))];
        let shape = grouped.shape().to_vec();
        let normal =
            self.node("InstanceNormalization", &[&grouped, &ones, &zeros], attributes, x.dtype(), shape)?;
        let sizes = self.node(
            "Shape",
            &[x],
            vec![],
            weighbridge_formats::DType::I64,
            vec![Dim::Fixed(x.rank() as u64)],
        )?;
        let normal = self.node("Reshape", &[&normal, &sizes], vec![], x.dtype(), x.shape().to_vec())?;
        let mut by_channel = vec![channels as i64];
        by_channel.resize(x.rank() - 1, 1);
        let (scale, shift) = (self.reshape(&scale, &by_channel)?, self.reshape(&shift, &by_channel)?);
        let scaled = self.mul(&normal, &scale)?;
        self.add(&scaled, &shift)
    }

    /// `NAME.weight` and `NAME.bias`, or ones and zeros for a layer that has learned none.
    fn affine(&mut self, name: &str, size: u64) -> Result<(Value, Value)> {
        let (scale, shift) = (format!("{name}.weight"), format!("{name}.bias"));
        let one = |graph: &mut Self, name: &str, default: f64| match graph.has_weight(name) {
            true => graph.weight(name, &[size]),
            false => graph.filled(size, default),
        };
        Ok((one(self, &scale, 1.0)?, one(self, &shift, 0.0)?))
    }

    /// A vector of one number. A config's word decides how long it is, so it has a bound.
    fn filled(&mut self, size: u64, number: f64) -> Result<Value> {
        if size > CHANNELS {
            return Err(self.error(format!("{size} channels or groups: at most {CHANNELS} are known")));
        }
        self.floats(self.compute(), &[size], &vec![number; size as usize])
    }

    /// A kernel, its bias where there is one, and its shape.
    fn kernel(&mut self, op: &str, x: &Value, name: &str) -> Result<(Value, Option<Value>, Vec<u64>)> {
        let weight = format!("{name}.weight");
        let shape = self.weight_shape(&weight).unwrap_or_default().to_vec();
        let value = self.weight(&weight, &shape)?;
        if shape.len() != x.rank() || shape.len() < 3 {
            return Err(self.error(format!("{op} of {} by {name} of {shape:?}", x.describe())));
        }
        let bias = format!("{name}.bias");
        let bias = match self.weight_shape(&bias).map(<[u64]>::to_vec) {
            Some(size) => Some(self.weight(&bias, &size)?),
            None => None,
        };
        Ok((value, bias, shape))
    }

    /// The number of channels of a value with places.
    fn channels(&self, op: &str, x: &Value) -> Result<u64> {
        let channels = x.shape().get(1).and_then(Dim::fixed);
        match channels.filter(|_| x.dtype().kind() == Kind::Float) {
            Some(channels) => Ok(channels),
            None => {
                Err(self.error(format!("{op} of {}, which should be [batch, channels, …]", x.describe())))
            }
        }
    }

    fn places(&self, op: &str, x: &Value, window: &Window) -> Result<Places> {
        let places = (x.rank() > 2).then(|| window.places(x.rank() - 2)).flatten();
        places.ok_or_else(|| self.error(format!("{op} of {} by {window:?}", x.describe())))
    }

    fn moved(&self, op: &str, x: &Value, channels: Dim, places: &Places) -> Result<Vec<Dim>> {
        let mut shape = vec![x.shape()[0].clone(), channels];
        for (i, dim) in x.shape()[2..].iter().enumerate() {
            let after = places.after(i, dim);
            shape.push(after.ok_or_else(|| {
                self.error(format!("{op}: a window of {:?} does not fit {}", places.size, spell(x.shape())))
            })?);
        }
        Ok(shape)
    }

    fn of_three(
        &mut self,
        op: &'static str,
        [x, weight]: [&Value; 2],
        bias: Option<&Value>,
        attributes: Vec<(&'static str, Attribute)>,
        shape: Vec<Dim>,
    ) -> Result<Value> {
        let inputs = [Some(x), Some(weight), bias];
        let mut made = self.nodes("", op, &inputs, attributes, &[(x.dtype(), shape)])?;
        made.pop().ok_or_else(|| self.error("a node without outputs"))
    }
}
