"""Models with experts whose class in SGLang 0.5.23 takes no placement, by ``architectures`` of their config.

SGLang asks the class for its layers and experts (``get_model_config_for_expert_location``, in
``sglang/srt/eplb/expert_location.py: ModelConfigForExpertLocation.from_model_config``). Where the class has no such
method, the file is read and then ignored, without a word. The list is that of ``sglang/srt/models``; a test makes it
again from the release's own source.
"""

__all__ = ["WITHOUT_PLACEMENT"]

WITHOUT_PLACEMENT = frozenset(
    {
        "AfmoeForCausalLM",
        "BeamForCausalLM",
        "Cohere2MoeForCausalLM",
        "DFlash2BeamDraftModel",
        "DFlash2DraftModel",
        "DFlashDraftModel",
        "DFlashLagunaForCausalLM",
        "DbrxForCausalLM",
        "DeepseekForCausalLM",
        "DeepseekOCRForCausalLM",
        "DeepseekV4ForCausalLMDSpark",
        "DeepseekVL2ForCausalLM",
        "Ernie4_5_ForCausalLM",
        "Ernie4_5_MoeForCausalLM",
        "Ernie4_5_VLMoeForConditionalGeneration",
        "Gemma4ForCausalLM",
        "Gemma4ForConditionalGeneration",
        "Glm4vMoeForConditionalGeneration",
        "GraniteMoeForCausalLM",
        "GraniteMoeSWAForCausalLM",
        "GraniteMoeSharedForCausalLM",
        "Grok1ForCausalLM",
        "Grok1ModelForCausalLM",
        "HYV3ForCausalLM",
        "HYV3ForCausalLMNextN",
        "HunYuanDenseV1ForCausalLM",
        "HunYuanMoEV1ForCausalLM",
        "IQuestQ1ForCausalLM",
        "InklingForConditionalGeneration",
        "InklingForConditionalGenerationMTP",
        "InternS1ForConditionalGeneration",
        "InternS2MobiusForConditionalGeneration",
        "InternVLChatModel",
        "KimiK3ForConditionalGeneration",
        "KimiK3LinearForCausalLM",
        "KimiLinearForCausalLM",
        "KimiVLForConditionalGeneration",
        "LagunaForCausalLM",
        "Lfm2MoeForCausalLM",
        "Llama4ForCausalLM",
        "Llama4ForConditionalGeneration",
        "MiniMaxDFlash2DraftModel",
        "MixtralForCausalLM",
        "MuseGlimmerAssistantModel",
        "OlmoeForCausalLM",
        "PhiMoEForCausalLM",
        "PixtralForConditionalGeneration",
        "PixtralVisionModel",
        "Qwen3OmniMoeForConditionalGeneration",
        "Qwen3_5ForConditionalGeneration",
        "TransformersEmbeddingModel",
        "TransformersForCausalLM",
        "TransformersForSequenceClassification",
        "TransformersMultiModalEmbeddingModel",
        "TransformersMultiModalForCausalLM",
        "TransformersMultiModalForSequenceClassification",
        "XverseMoeForCausalLM",
        "ZayaForCausalLM",
    }
)
