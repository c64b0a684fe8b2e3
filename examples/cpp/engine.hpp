// A network that maps an image to labels.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

struct Shape {
  std::int64_t height, width, channels;
};

// The output "labels" (H×W bytes) of an ONNX file of a bundle, for one image (H×W×C bytes). Throws std::exception.
std::vector<std::uint8_t> labels_of(const std::string& model, const std::vector<std::uint8_t>& pixels, Shape shape);
