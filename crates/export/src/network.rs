//! A program's own network as a plain list of layers, by its weights and a small config.
//!
//! Layers have the names of torch's modules and of their arguments; channels and sizes are those of the weights. A layer
//! takes what the one before it gives. `as` names a layer's output, and `from` takes a named one instead; `Add` and `Concat`
//! join the current value `with` named ones. `docs/export.md` has the table.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};
use weighbridge_formats::{DType, Error, Kind, Result};

use crate::architecture::Activation;
use crate::graph::{Attribute, Dim, GraphBuilder, Value, Window};
use crate::settings::Settings;

/// The value of `model_type` that says that a config is a list of layers.
pub(crate) const MODEL_TYPE: &str = "layers";

/// The most layers that a config may have.
const MOST: usize = 100_000;

/// What a layer is, and the arguments that it may have beside those that every layer has.
const LAYERS: &[(&str, &[&str])] = &[
    ("Linear", &["name"]),
    ("Embedding", &["name"]),
    ("Conv1d", CONV),
    ("Conv2d", CONV),
    ("Conv3d", CONV),
    ("ConvTranspose1d", CONV_TRANSPOSE),
    ("ConvTranspose2d", CONV_TRANSPOSE),
    ("ConvTranspose3d", CONV_TRANSPOSE),
    ("BatchNorm1d", &["name", "eps"]),
    ("BatchNorm2d", &["name", "eps"]),
    ("BatchNorm3d", &["name", "eps"]),
    ("LayerNorm", &["name", "eps"]),
    ("RMSNorm", &["name", "eps"]),
    ("GroupNorm", &["name", "eps", "num_groups"]),
    ("InstanceNorm1d", &["name", "eps"]),
    ("InstanceNorm2d", &["name", "eps"]),
    ("InstanceNorm3d", &["name", "eps"]),
    ("ReLU", &[]),
    ("GELU", &["approximate"]),
    ("SiLU", &[]),
    ("Tanh", &[]),
    ("Sigmoid", &[]),
    ("LeakyReLU", &["negative_slope"]),
    ("ELU", &["alpha"]),
    ("Softmax", &["dim"]),
    ("LogSoftmax", &["dim"]),
    ("MaxPool1d", MAX_POOL),
    ("MaxPool2d", MAX_POOL),
    ("MaxPool3d", MAX_POOL),
    ("AvgPool1d", AVERAGE_POOL),
    ("AvgPool2d", AVERAGE_POOL),
    ("AvgPool3d", AVERAGE_POOL),
    ("AdaptiveAvgPool1d", &["output_size"]),
    ("AdaptiveAvgPool2d", &["output_size"]),
    ("AdaptiveAvgPool3d", &["output_size"]),
    ("Mean", &["dim", "keepdim"]),
    ("Flatten", &["start_dim"]),
    ("Dropout", &["p"]),
    ("Identity", &[]),
    ("Add", &["with"]),
    ("Concat", &["with", "dim"]),
];

const CONV: &[&str] = &["name", "stride", "padding", "dilation", "groups"];
const CONV_TRANSPOSE: &[&str] = &["name", "stride", "padding", "dilation", "groups", "output_padding"];
const MAX_POOL: &[&str] = &["kernel_size", "stride", "padding", "dilation", "ceil_mode"];
const AVERAGE_POOL: &[&str] = &["kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"];

/// Builds the graph of a config: `inputs`, `layers`, and `outputs` where they are not the last layer's alone.
pub(crate) fn build(graph: &mut GraphBuilder<'_>, config: &Settings<'_>, io: DType) -> Result<()> {
    let mut named: HashMap<String, Value> = HashMap::new();
    let mut current = None;
    for input in config.objects("inputs")? {
        input.only(&["name", "shape", "dtype"], "an input")?;
        let name = input.text("name")?;
        let dtype = match input.word("dtype", "float", &["float", "int"])? {
            "int" => DType::I64,
            _ => io,
        };
        let value = graph.input(name, dtype, &shape(&input)?)?;
        let value = if dtype == DType::I64 { value } else { graph.cast(&value, graph.compute())? };
        named.insert(name.to_owned(), value.clone());
        current.get_or_insert(value);
    }
    let mut current = current.ok_or_else(|| Error::malformed("the config has no inputs"))?;
    let layers = config.objects("layers")?;
    if layers.len() > MOST {
        return Err(Error::malformed(format!("{} layers, of at most {MOST}", layers.len())));
    }
    for (i, layer) in layers.iter().enumerate() {
        current = step(graph, &mut named, layer, i, current).map_err(|e| {
            let kind = layer.text_if("type").ok().flatten().unwrap_or("no type");
            let error = Error::new(e.kind(), format!("layer {i} ({kind}): {}", e.message()));
            match e.tensor() {
                Some(tensor) => error.with_tensor(tensor),
                None => error,
            }
        })?;
    }
    let outputs = match config.get("outputs") {
        Some(_) => config.objects("outputs")?,
        None => Vec::new(),
    };
    let give = |graph: &mut GraphBuilder<'_>, name: &str, value: &Value| {
        let value = if value.dtype().kind() == Kind::Float { graph.cast(value, io)? } else { value.clone() };
        graph.output(name, &value)
    };
    if outputs.is_empty() {
        return give(graph, "output", &current);
    }
    for output in outputs {
        output.only(&["name", "from"], "an output")?;
        let name = output.text("name")?;
        let value = output.text_if("from")?.map_or(Ok(current.clone()), |from| find(&named, from))?;
        give(graph, name, &value)?;
    }
    Ok(())
}

/// What a layer gives, which is named where the layer says so.
fn step(
    graph: &mut GraphBuilder<'_>,
    named: &mut HashMap<String, Value>,
    layer: &Settings<'_>,
    number: usize,
    current: Value,
) -> Result<Value> {
    let kind = layer.text("type")?;
    let x = layer.text_if("from")?.map_or(Ok(current), |from| find(named, from))?;
    let scope = layer.text_if("name")?.map_or_else(|| number.to_string(), str::to_owned);
    let y = graph.scoped(scope, |graph| one(graph, named, kind, layer, &x))?;
    if let Some(name) = layer.text_if("as")?
        && named.insert(name.to_owned(), y.clone()).is_some()
    {
        return Err(Error::malformed(format!("the name {name:?} is taken")));
    }
    Ok(y)
}

fn find(named: &HashMap<String, Value>, name: &str) -> Result<Value> {
    named.get(name).cloned().ok_or_else(|| {
        let mut known: Vec<&str> = named.keys().map(String::as_str).collect();
        known.sort_unstable();
        Error::malformed(format!("no value is called {name:?}: there are {}", known.join(", ")))
    })
}

/// A shape: numbers, and names for sizes that are open.
fn shape(input: &Settings<'_>) -> Result<Vec<Dim>> {
    let wrong = || Error::malformed("an input's \"shape\" is a list of numbers above 0 and names");
    let dims = input.get("shape").and_then(Json::as_array).ok_or_else(wrong)?;
    let dim = |d: &Json| match d {
        Json::String(name) if !name.is_empty() => Ok(Dim::symbol(name.as_str())),
        number => number.as_u64().filter(|n| (1..=1 << 31).contains(n)).map(Dim::Fixed).ok_or_else(wrong),
    };
    dims.iter().map(dim).collect()
}

/// The window that a layer's arguments describe.
fn window(layer: &Settings<'_>, size: Vec<u64>) -> Result<Window> {
    let default = Window::default();
    Ok(Window {
        // Pools move by their size where nothing is said; convolutions by 1.
        stride: match layer.numbers_if("stride")? {
            Some(stride) => stride,
            None if size.is_empty() => default.stride,
            None => size.clone(),
        },
        padding: layer.numbers_if("padding")?.unwrap_or(default.padding),
        dilation: layer.numbers_if("dilation")?.unwrap_or(default.dilation),
        ceil: layer.flag_or("ceil_mode", false)?,
        size,
    })
}

fn one(
    graph: &mut GraphBuilder<'_>,
    named: &HashMap<String, Value>,
    kind: &str,
    layer: &Settings<'_>,
    x: &Value,
) -> Result<Value> {
    let Some((_, arguments)) = LAYERS.iter().find(|l| l.0 == kind) else {
        let known: Vec<&str> = LAYERS.iter().map(|l| l.0).collect();
        return Err(Error::unsupported(format!("the layer is not known: known are {}", known.join(", "))));
    };
    layer.only(&[&["type", "from", "as"], *arguments].concat(), kind)?;
    let (base, rank) = match kind.strip_suffix('d').and_then(|k| k.split_at_checked(k.len() - 1)) {
        Some((base, digit @ ("1" | "2" | "3"))) => (base, digit.parse().ok()),
        _ => (kind, None),
    };
    // torch's 1d norms take values without places too.
    if let Some(rank) = rank.map(|r: usize| r + 2)
        && x.rank() != rank
        && !(kind == "BatchNorm1d" && x.rank() == 2)
    {
        return Err(Error::mismatch(format!(
            "its input is {}, and should have {rank} dimensions",
            x.describe()
        )));
    }
    let name = layer.text_if("name")?.unwrap_or_default();
    let eps = layer.float_or("eps", 1e-5)? as f32;
    match base {
        "Linear" => {
            let shape = graph.weight_shape(&format!("{name}.weight")).unwrap_or_default();
            let out = shape.first().copied().unwrap_or_default();
            let bias = format!("{name}.bias");
            let bias = graph.has_weight(&bias).then_some(bias);
            graph.linear(x, &format!("{name}.weight"), bias.as_deref(), out)
        }
        "Embedding" => {
            let weight = format!("{name}.weight");
            let &[rows, size] = graph.weight_shape(&weight).unwrap_or(&[0, 0]) else {
                return Err(Error::mismatch("a table of embeddings is a matrix").with_tensor(weight));
            };
            graph.embedding(x, &weight, rows, size)
        }
        "Conv" => graph.conv(x, name, &window(layer, Vec::new())?, layer.size_or("groups", 1)?),
        "ConvTranspose" => {
            let more = layer.numbers_if("output_padding")?.unwrap_or_else(|| vec![0]);
            let groups = layer.size_or("groups", 1)?;
            graph.conv_transpose(x, name, &window(layer, Vec::new())?, groups, &more)
        }
        "BatchNorm" => graph.batch_norm(x, name, eps),
        "LayerNorm" => graph.layer_norm(x, name, eps),
        "RMSNorm" => graph.rms_norm(x, name, eps),
        "GroupNorm" => graph.group_norm(x, name, layer.size("num_groups")?, eps),
        "InstanceNorm" => {
            let channels = x.shape().get(1).and_then(Dim::fixed);
            let channels =
                channels.ok_or_else(|| Error::mismatch(format!("channels of {}", x.describe())))?;
            graph.group_norm(x, name, channels, eps)
        }
        "ReLU" => graph.relu(x),
        "GELU" => match layer.word("approximate", "none", &["none", "tanh"])? {
            "tanh" => graph.gelu_tanh(x),
            _ => graph.gelu(x),
        },
        "SiLU" => Activation::Silu.apply(graph, x),
        "Tanh" => graph.tanh(x),
        "Sigmoid" => graph.sigmoid(x),
        "LeakyReLU" => curved(graph, "LeakyRelu", x, layer.float_or("negative_slope", 0.01)?),
        "ELU" => curved(graph, "Elu", x, layer.float_or("alpha", 1.0)?),
        "Softmax" => graph.softmax(x, layer.axis("dim", -1)?),
        "LogSoftmax" => {
            let soft = graph.softmax(x, layer.axis("dim", -1)?)?;
            graph.log(&soft)
        }
        "MaxPool" => graph.max_pool(x, &window(layer, layer.numbers("kernel_size")?)?),
        "AvgPool" => {
            let padded = layer.flag_or("count_include_pad", true)?;
            graph.average_pool(x, &window(layer, layer.numbers("kernel_size")?)?, padded)
        }
        "AdaptiveAvgPool" => match layer.numbers("output_size")?.iter().all(|&n| n == 1) {
            true => graph.global_average_pool(x),
            false => Err(Error::unsupported("only an \"output_size\" of 1 is known")),
        },
        "Mean" => graph.reduce_mean(x, &[layer.axis("dim", -1)?], layer.flag_or("keepdim", false)?),
        "Flatten" => {
            let start = usize::try_from(layer.index_if("start_dim")?.unwrap_or(1)).unwrap_or(usize::MAX);
            if start >= x.rank() {
                return Err(Error::mismatch(format!("{} has no dimension {start}", x.describe())));
            }
            let mut to = vec![0; start];
            to.push(-1);
            graph.reshape(x, &to)
        }
        "Dropout" | "Identity" => Ok(x.clone()),
        "Add" => {
            let other = find(named, layer.text("with")?)?;
            graph.add(x, &other)
        }
        "Concat" => {
            let other = find(named, layer.text("with")?)?;
            graph.concat(&[x, &other], layer.axis("dim", 1)?)
        }
        other => Err(Error::unsupported(format!("the layer {other} has no graph"))),
    }
}

fn curved(graph: &mut GraphBuilder<'_>, op: &'static str, x: &Value, alpha: f64) -> Result<Value> {
    if x.dtype().kind() != Kind::Float {
        return Err(Error::mismatch(format!("{op} of {}", x.describe())));
    }
    let attributes = vec![("alpha", Attribute::Float(alpha as f32))];
    graph.node(op, &[x], attributes, x.dtype(), x.shape().to_vec())
}

/// The names of the layers that are known.
pub fn known_layers() -> impl Iterator<Item = &'static str> {
    LAYERS.iter().map(|l| l.0)
}

/// The config of a list of layers, as the fields of an object.
pub(crate) fn fields(config: &Map<String, Json>) -> Result<Settings<'_>> {
    let settings = Settings::new(config);
    settings.only(&["model_type", "inputs", "layers", "outputs"], "a list of layers")?;
    Ok(settings)
}
