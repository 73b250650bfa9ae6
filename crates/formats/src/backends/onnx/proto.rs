//! The messages of ONNX, as `onnx.proto` of onnx 1.23 (IR version 14) has them.
//!
//! Field numbers, types and names are the schema's. A field that may be absent is an `Option`: the schema is proto2,
//! where absent and empty are not the same. prost writes the fields of a message by number, so equal messages give
//! equal bytes. Large fields that most attributes do not have are boxed.

use prost::{Enumeration, Message, Oneof};

/// A whole model: a graph, the operator sets that it is written in, and where it came from.
#[derive(Clone, PartialEq, Message)]
pub struct ModelProto {
    /// The version of the format that the file is written in.
    #[prost(int64, optional, tag = "1")]
    pub ir_version: Option<i64>,
    /// The tool that made the model.
    #[prost(string, optional, tag = "2")]
    pub producer_name: Option<String>,
    /// Its version.
    #[prost(string, optional, tag = "3")]
    pub producer_version: Option<String>,
    /// The namespace of the model, in reverse-DNS form.
    #[prost(string, optional, tag = "4")]
    pub domain: Option<String>,
    /// The version of the graph.
    #[prost(int64, optional, tag = "5")]
    pub model_version: Option<i64>,
    /// A description for people.
    #[prost(string, optional, tag = "6")]
    pub doc_string: Option<String>,
    /// The graph that is evaluated.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    /// The operator sets that the graph's nodes come from.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// Text metadata.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringStringEntryProto>,
    /// How the model is trained.
    #[prost(message, repeated, tag = "20")]
    pub training_info: Vec<TrainingInfoProto>,
    /// Functions of the model's own, which nodes call as operators.
    #[prost(message, repeated, tag = "25")]
    pub functions: Vec<FunctionProto>,
    /// The configurations of devices that nodes refer to.
    #[prost(message, repeated, tag = "26")]
    pub configuration: Vec<DeviceConfigurationProto>,
}

/// Nodes in topological order, with the values they start from and end in.
#[derive(Clone, PartialEq, Message)]
pub struct GraphProto {
    /// The nodes, each after those it depends on.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    /// The graph's name.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    /// Constants by name.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    /// A description for people.
    #[prost(string, optional, tag = "10")]
    pub doc_string: Option<String>,
    /// What the graph is given.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    /// What it computes.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
    /// Types of values in between.
    #[prost(message, repeated, tag = "13")]
    pub value_info: Vec<ValueInfoProto>,
    /// Which tensors hold scales and zero points of others.
    #[prost(message, repeated, tag = "14")]
    pub quantization_annotation: Vec<TensorAnnotation>,
    /// Constants by name, most of whose elements are zero.
    #[prost(message, repeated, tag = "15")]
    pub sparse_initializer: Vec<SparseTensorProto>,
    /// Text metadata.
    #[prost(message, repeated, tag = "16")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// One call of an operator or function.
#[derive(Clone, PartialEq, Message)]
pub struct NodeProto {
    /// The names of its inputs; an empty one is an input that is left out.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// The names of its outputs.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// The node's own name.
    #[prost(string, optional, tag = "3")]
    pub name: Option<String>,
    /// The operator.
    #[prost(string, optional, tag = "4")]
    pub op_type: Option<String>,
    /// Its attributes.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    /// A description for people.
    #[prost(string, optional, tag = "6")]
    pub doc_string: Option<String>,
    /// The operator set that the operator is of; empty for ONNX's own.
    #[prost(string, optional, tag = "7")]
    pub domain: Option<String>,
    /// Which of several functions of one name is called.
    #[prost(string, optional, tag = "8")]
    pub overload: Option<String>,
    /// Text metadata.
    #[prost(message, repeated, tag = "9")]
    pub metadata_props: Vec<StringStringEntryProto>,
    /// Where the node runs.
    #[prost(message, repeated, tag = "10")]
    pub device_configurations: Vec<NodeDeviceConfigurationProto>,
}

/// A named constant of a node: one of many types.
#[derive(Clone, PartialEq, Message)]
pub struct AttributeProto {
    /// The attribute's name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// A float.
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    /// An integer.
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    /// A string, in UTF-8 by rule.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub s: Option<Vec<u8>>,
    /// A tensor.
    #[prost(message, optional, boxed, tag = "5")]
    pub t: Option<Box<TensorProto>>,
    /// A graph: the body of a branch or loop.
    #[prost(message, optional, boxed, tag = "6")]
    pub g: Option<Box<GraphProto>>,
    /// Floats.
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    /// Integers.
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    /// Strings.
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub strings: Vec<Vec<u8>>,
    /// Tensors.
    #[prost(message, repeated, tag = "10")]
    pub tensors: Vec<TensorProto>,
    /// Graphs.
    #[prost(message, repeated, tag = "11")]
    pub graphs: Vec<GraphProto>,
    /// A description for people.
    #[prost(string, optional, tag = "13")]
    pub doc_string: Option<String>,
    /// A type.
    #[prost(message, optional, boxed, tag = "14")]
    pub tp: Option<Box<TypeProto>>,
    /// Types.
    #[prost(message, repeated, tag = "15")]
    pub type_protos: Vec<TypeProto>,
    /// Which of the fields holds the value.
    #[prost(enumeration = "AttributeType", optional, tag = "20")]
    pub r#type: Option<i32>,
    /// In a function's body: the function's attribute that the value comes from.
    #[prost(string, optional, tag = "21")]
    pub ref_attr_name: Option<String>,
    /// A sparse tensor.
    #[prost(message, optional, boxed, tag = "22")]
    pub sparse_tensor: Option<Box<SparseTensorProto>>,
    /// Sparse tensors.
    #[prost(message, repeated, tag = "23")]
    pub sparse_tensors: Vec<SparseTensorProto>,
}

/// Which field of an [`AttributeProto`] holds its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum AttributeType {
    /// None is said, as in files of the first IR versions.
    Undefined = 0,
    /// `f`.
    Float = 1,
    /// `i`.
    Int = 2,
    /// `s`.
    String = 3,
    /// `t`.
    Tensor = 4,
    /// `g`.
    Graph = 5,
    /// `floats`.
    Floats = 6,
    /// `ints`.
    Ints = 7,
    /// `strings`.
    Strings = 8,
    /// `tensors`.
    Tensors = 9,
    /// `graphs`.
    Graphs = 10,
    /// `sparse_tensor`.
    SparseTensor = 11,
    /// `sparse_tensors`.
    SparseTensors = 12,
    /// `tp`.
    TypeProto = 13,
    /// `type_protos`.
    TypeProtos = 14,
}

/// A value's name and type.
#[derive(Clone, PartialEq, Message)]
pub struct ValueInfoProto {
    /// The value's name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Its type.
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<TypeProto>,
    /// A description for people.
    #[prost(string, optional, tag = "3")]
    pub doc_string: Option<String>,
    /// Text metadata.
    #[prost(message, repeated, tag = "4")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// A tensor: its elements in one of the data fields, or in another file.
#[derive(Clone, PartialEq, Message)]
pub struct TensorProto {
    /// The sizes of the dimensions, outermost first.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    /// The type of the elements, a [`DataType`].
    #[prost(int32, optional, tag = "2")]
    pub data_type: Option<i32>,
    /// The part of a larger tensor that this is; nothing is known to write it.
    #[prost(message, optional, tag = "3")]
    pub segment: Option<Segment>,
    /// Elements of `Float`, and of `Complex64` by pairs.
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// Elements of the narrow integers and floats, one a number; 4-bit elements two a number, 2-bit elements four.
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    /// Elements of `String`.
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub string_data: Vec<Vec<u8>>,
    /// Elements of `Int64`.
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    /// The tensor's name.
    #[prost(string, optional, tag = "8")]
    pub name: Option<String>,
    /// Elements of any type but `String`: little-endian, row-major.
    #[prost(bytes = "vec", optional, tag = "9")]
    pub raw_data: Option<Vec<u8>>,
    /// Elements of `Double`, and of `Complex128` by pairs.
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    /// Elements of `Uint64` and `Uint32`.
    #[prost(uint64, repeated, tag = "11")]
    pub uint64_data: Vec<u64>,
    /// A description for people.
    #[prost(string, optional, tag = "12")]
    pub doc_string: Option<String>,
    /// Where the elements are if not here: `location`, `offset`, `length`, `checksum`.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringStringEntryProto>,
    /// Whether the elements are in another file.
    #[prost(enumeration = "DataLocation", optional, tag = "14")]
    pub data_location: Option<i32>,
    /// Text metadata.
    #[prost(message, repeated, tag = "16")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// A range of elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct Segment {
    /// The first.
    #[prost(int64, optional, tag = "1")]
    pub begin: Option<i64>,
    /// The one behind the last.
    #[prost(int64, optional, tag = "2")]
    pub end: Option<i64>,
}

/// Where a tensor's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum DataLocation {
    /// In one of its data fields.
    Default = 0,
    /// In another file.
    External = 1,
}

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum DataType {
    /// None is said.
    Undefined = 0,
    /// IEEE 754 single precision.
    Float = 1,
    /// An unsigned 8-bit integer.
    Uint8 = 2,
    /// A signed 8-bit integer.
    Int8 = 3,
    /// An unsigned 16-bit integer.
    Uint16 = 4,
    /// A signed 16-bit integer.
    Int16 = 5,
    /// A signed 32-bit integer.
    Int32 = 6,
    /// A signed 64-bit integer.
    Int64 = 7,
    /// Bytes of any length, in UTF-8 by rule.
    String = 8,
    /// True or false, a byte each.
    Bool = 9,
    /// IEEE 754 half precision.
    Float16 = 10,
    /// IEEE 754 double precision.
    Double = 11,
    /// An unsigned 32-bit integer.
    Uint32 = 12,
    /// An unsigned 64-bit integer.
    Uint64 = 13,
    /// A pair of single-precision floats.
    Complex64 = 14,
    /// A pair of double-precision floats.
    Complex128 = 15,
    /// The upper half of a single-precision float.
    Bfloat16 = 16,
    /// E4M3 without infinities.
    Float8e4m3fn = 17,
    /// E4M3, bias 8, without infinities and negative zero.
    Float8e4m3fnuz = 18,
    /// E5M2.
    Float8e5m2 = 19,
    /// E5M2, bias 16, without infinities and negative zero.
    Float8e5m2fnuz = 20,
    /// An unsigned 4-bit integer.
    Uint4 = 21,
    /// A signed 4-bit integer.
    Int4 = 22,
    /// E2M1.
    Float4e2m1 = 23,
    /// An exponent alone.
    Float8e8m0 = 24,
    /// An unsigned 2-bit integer.
    Uint2 = 25,
    /// A signed 2-bit integer.
    Int2 = 26,
    /// E2M3.
    Float6e2m3 = 27,
    /// E3M2.
    Float6e3m2 = 28,
}

/// A tensor by the elements that are not zero.
#[derive(Clone, PartialEq, Message)]
pub struct SparseTensorProto {
    /// The elements; their tensor's name is the sparse tensor's.
    #[prost(message, optional, tag = "1")]
    pub values: Option<TensorProto>,
    /// Where they are: \[n\] positions in row-major order, or \[n, rank\] coordinates; of `Int64`, ascending.
    #[prost(message, optional, tag = "2")]
    pub indices: Option<TensorProto>,
    /// The sizes of the dimensions.
    #[prost(int64, repeated, packed = "false", tag = "3")]
    pub dims: Vec<i64>,
}

/// The sizes of a value's dimensions.
#[derive(Clone, PartialEq, Message)]
pub struct TensorShapeProto {
    /// One entry a dimension.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

/// One dimension.
#[derive(Clone, PartialEq, Message)]
pub struct Dimension {
    /// Its size; absent where nothing is known.
    #[prost(oneof = "DimensionValue", tags = "1, 2")]
    pub value: Option<DimensionValue>,
    /// What the dimension stands for, such as `DATA_BATCH`.
    #[prost(string, optional, tag = "3")]
    pub denotation: Option<String>,
}

/// The size of a dimension.
#[derive(Clone, PartialEq, Eq, Hash, Oneof)]
pub enum DimensionValue {
    /// A number.
    #[prost(int64, tag = "1")]
    DimValue(i64),
    /// A name: equal names are equal sizes.
    #[prost(string, tag = "2")]
    DimParam(String),
}

/// A value's type.
#[derive(Clone, PartialEq, Message)]
pub struct TypeProto {
    /// The type.
    #[prost(oneof = "TypeValue", tags = "1, 4, 5, 7, 8, 9")]
    pub value: Option<TypeValue>,
    /// What the value stands for, such as `IMAGE`.
    #[prost(string, optional, tag = "6")]
    pub denotation: Option<String>,
}

/// One of the kinds of types.
#[derive(Clone, PartialEq, Oneof)]
pub enum TypeValue {
    /// A tensor.
    #[prost(message, tag = "1")]
    TensorType(TensorType),
    /// A sequence of values of one type.
    #[prost(message, tag = "4")]
    SequenceType(Box<SequenceType>),
    /// A map.
    #[prost(message, tag = "5")]
    MapType(Box<MapType>),
    /// A type that ONNX does not know.
    #[prost(message, tag = "7")]
    OpaqueType(OpaqueType),
    /// A sparse tensor.
    #[prost(message, tag = "8")]
    SparseTensorType(TensorType),
    /// A value or nothing.
    #[prost(message, tag = "9")]
    OptionalType(Box<OptionalType>),
}

/// `TypeProto.Tensor`, and `TypeProto.SparseTensor`, which has the same fields.
#[derive(Clone, PartialEq, Message)]
pub struct TensorType {
    /// The type of the elements, a [`DataType`].
    #[prost(int32, optional, tag = "1")]
    pub elem_type: Option<i32>,
    /// The shape; absent where not even the rank is known.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

/// `TypeProto.Sequence`.
#[derive(Clone, PartialEq, Message)]
pub struct SequenceType {
    /// The type of the elements.
    #[prost(message, optional, boxed, tag = "1")]
    pub elem_type: Option<Box<TypeProto>>,
}

/// `TypeProto.Map`.
#[derive(Clone, PartialEq, Message)]
pub struct MapType {
    /// The type of the keys, a [`DataType`]: an integer or `String`.
    #[prost(int32, optional, tag = "1")]
    pub key_type: Option<i32>,
    /// The type of the values.
    #[prost(message, optional, boxed, tag = "2")]
    pub value_type: Option<Box<TypeProto>>,
}

/// `TypeProto.Optional`.
#[derive(Clone, PartialEq, Message)]
pub struct OptionalType {
    /// The type of the value.
    #[prost(message, optional, boxed, tag = "1")]
    pub elem_type: Option<Box<TypeProto>>,
}

/// `TypeProto.Opaque`.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct OpaqueType {
    /// The namespace.
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    /// The type's name.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
}

/// A function: nodes under a name, which other nodes call.
#[derive(Clone, PartialEq, Message)]
pub struct FunctionProto {
    /// The name that nodes call it by.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// The names of its inputs.
    #[prost(string, repeated, tag = "4")]
    pub input: Vec<String>,
    /// The names of its outputs.
    #[prost(string, repeated, tag = "5")]
    pub output: Vec<String>,
    /// The attributes that have no default.
    #[prost(string, repeated, tag = "6")]
    pub attribute: Vec<String>,
    /// Its nodes, each after those it depends on.
    #[prost(message, repeated, tag = "7")]
    pub node: Vec<NodeProto>,
    /// A description for people.
    #[prost(string, optional, tag = "8")]
    pub doc_string: Option<String>,
    /// The operator sets that its nodes come from.
    #[prost(message, repeated, tag = "9")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// The operator set that the function is part of.
    #[prost(string, optional, tag = "10")]
    pub domain: Option<String>,
    /// The attributes that have a default, with it.
    #[prost(message, repeated, tag = "11")]
    pub attribute_proto: Vec<AttributeProto>,
    /// Types of values in the function.
    #[prost(message, repeated, tag = "12")]
    pub value_info: Vec<ValueInfoProto>,
    /// Which of several functions of one name this is.
    #[prost(string, optional, tag = "13")]
    pub overload: Option<String>,
    /// Text metadata.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// An operator set by name and version.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct OperatorSetIdProto {
    /// The set's namespace; empty for ONNX's own.
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    /// Its version.
    #[prost(int64, optional, tag = "2")]
    pub version: Option<i64>,
}

/// A pair of strings.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct StringStringEntryProto {
    /// The key.
    #[prost(string, optional, tag = "1")]
    pub key: Option<String>,
    /// The value.
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

/// Which tensors describe the quantization of another.
#[derive(Clone, PartialEq, Message)]
pub struct TensorAnnotation {
    /// The tensor that is quantized.
    #[prost(string, optional, tag = "1")]
    pub tensor_name: Option<String>,
    /// `SCALE_TENSOR` and `ZERO_POINT_TENSOR`, each with a tensor's name.
    #[prost(message, repeated, tag = "2")]
    pub quant_parameter_tensor_names: Vec<StringStringEntryProto>,
}

/// How a model is trained: one step, and the start.
#[derive(Clone, PartialEq, Message)]
pub struct TrainingInfoProto {
    /// Computes the initial state.
    #[prost(message, optional, tag = "1")]
    pub initialization: Option<GraphProto>,
    /// One step.
    #[prost(message, optional, tag = "2")]
    pub algorithm: Option<GraphProto>,
    /// Which initializers the initial state is put into.
    #[prost(message, repeated, tag = "3")]
    pub initialization_binding: Vec<StringStringEntryProto>,
    /// Which initializers a step's outputs are put into.
    #[prost(message, repeated, tag = "4")]
    pub update_binding: Vec<StringStringEntryProto>,
}

/// A named set of devices.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct DeviceConfigurationProto {
    /// The configuration's name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// How many devices it has.
    #[prost(int32, optional, tag = "2")]
    pub num_devices: Option<i32>,
    /// Their names.
    #[prost(string, repeated, tag = "3")]
    pub device: Vec<String>,
}

/// How a node is spread over the devices of a configuration.
#[derive(Clone, PartialEq, Message)]
pub struct NodeDeviceConfigurationProto {
    /// The configuration's name.
    #[prost(string, optional, tag = "1")]
    pub configuration_id: Option<String>,
    /// How its tensors are split.
    #[prost(message, repeated, tag = "2")]
    pub sharding_spec: Vec<ShardingSpecProto>,
    /// The stage of a pipeline that it runs in.
    #[prost(int32, optional, tag = "3")]
    pub pipeline_stage: Option<i32>,
}

/// How one tensor is split over devices.
#[derive(Clone, PartialEq, Message)]
pub struct ShardingSpecProto {
    /// The tensor.
    #[prost(string, optional, tag = "1")]
    pub tensor_name: Option<String>,
    /// The devices.
    #[prost(int64, repeated, packed = "false", tag = "2")]
    pub device: Vec<i64>,
    /// Groups of devices, by number.
    #[prost(message, repeated, tag = "3")]
    pub index_to_device_group_map: Vec<IntIntListEntryProto>,
    /// The dimensions that are split.
    #[prost(message, repeated, tag = "4")]
    pub sharded_dim: Vec<ShardedDimProto>,
}

/// A number and a list of numbers.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct IntIntListEntryProto {
    /// The number.
    #[prost(int64, optional, tag = "1")]
    pub key: Option<i64>,
    /// The list.
    #[prost(int64, repeated, packed = "false", tag = "2")]
    pub value: Vec<i64>,
}

/// One dimension that is split.
#[derive(Clone, PartialEq, Message)]
pub struct ShardedDimProto {
    /// Which.
    #[prost(int64, optional, tag = "1")]
    pub axis: Option<i64>,
    /// How: one after another, for a dimension that is several merged ones.
    #[prost(message, repeated, tag = "2")]
    pub simple_sharding: Vec<SimpleShardedDimProto>,
}

/// A dimension and the number of its shards.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct SimpleShardedDimProto {
    /// The size of the dimension.
    #[prost(oneof = "DimensionValue", tags = "1, 2")]
    pub dim: Option<DimensionValue>,
    /// The number of its shards.
    #[prost(int64, optional, tag = "3")]
    pub num_shards: Option<i64>,
}
