"""TensorRT-LLM, from the files of its repository: what is on PyPI is a stub."""

from placement.engines.engine import Engine

__all__ = ["ENGINE"]

_FOLDER = "tensorrt_llm/_torch/moe/fused_moe"

ENGINE = Engine(
    name="tensorrt-llm",
    title="TensorRT-LLM",
    version="17d5bd861cdd (main branch)",
    page="tensorrt_llm",
    execution="dispatch",
    dedup="gpu",
    ownership="sequence",
    backend="TRTLLM_FORCE_COMM_METHOD=NVLINK_ONE_SIDED",
    backends={
        "TRTLLM_FORCE_COMM_METHOD=NVLINK_ONE_SIDED": "gpu",
        "TRTLLM_FORCE_COMM_METHOD=DEEPEP": "node",
        "TRTLLM_FORCE_COMM_METHOD=DEEPEPLOWLATENCY": "none",
        "TRTLLM_FORCE_COMM_METHOD=ALLGATHER": None,
    },
    algorithms={"round_robin": "fair"},
    default_layout="overlapping",
    export="trtllm",
    also_named=("trtllm",),
    sources={
        "execution": f"{_FOLDER}/communication/communication_factory.py: CommunicationFactory.create_strategy",
        "dedup": "cpp/tensorrt_llm/kernels/communicationKernels/moeAlltoAllKernels.cu: moeA2ADispatchKernel",
        "ownership": f"{_FOLDER}/interface.py: MoE._init_load_balancer",
        "algorithms": "cpp/tensorrt_llm/kernels/moeLoadBalance/moeLoadBalanceKernels.cu: moeComputeRouteKernel",
        "full_slots": f"{_FOLDER}/interface.py: MoE._init_load_balancer",
        "default_layout": f"{_FOLDER}/interface.py: MoE._init_load_balancer",
        "export": "tensorrt_llm/llmapi/llm_args.py: MoeLoadBalancerConfig",
    },
    notes=(
        "TensorRT-LLM takes the first way to send that works: one-sided over NVLink, a message per GPU, where all GPUs "
        "share NVLink; without it DeepEP, with a message per node.",
        "A rank counts its tokens of an expert and takes replicas in turn, starting with its own number: a replica on "
        "the own GPU is not preferred.",
    ),
)
