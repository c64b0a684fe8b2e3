// By ONNX Runtime's C++ interface, on the CPU.
#include <onnxruntime_cxx_api.h>

#include <array>

#include "engine.hpp"

std::vector<std::uint8_t> labels_of(const std::string& model, const std::vector<std::uint8_t>& pixels, Shape shape) {
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "segment");
  Ort::SessionOptions options;
#if defined(__x86_64__) || defined(_M_X64)
  // Without VNNI, products of int8 are added in 16 bits and may overflow silently; this avoids it and is slower.
#if defined(__GNUC__)
  const bool has_vnni = __builtin_cpu_supports("avx512vnni");
#else
  const bool has_vnni = false;
#endif
  if (!has_vnni) options.AddConfigEntry("session.x64quantprecision", "1");
#endif
  Ort::Session session(env, model.c_str(), options);
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const std::array<std::int64_t, 4> sides{1, shape.height, shape.width, shape.channels};
  auto* data = const_cast<std::uint8_t*>(pixels.data());  // the interface takes no const; it only reads
  auto image = Ort::Value::CreateTensor<std::uint8_t>(memory, data, pixels.size(), sides.data(), sides.size());
  const char* inputs[] = {"image"};
  const char* outputs[] = {"labels"};
  auto found = session.Run(Ort::RunOptions{nullptr}, inputs, &image, 1, outputs, 1);
  const auto* labels = found[0].GetTensorData<std::uint8_t>();
  return {labels, labels + shape.height * shape.width};
}
