// Run a bundle on an image, without Python: segment BUNDLE IMAGE.ppm MASK.pgm [model.int8-cpu.onnx]
//
// The graph holds normalization, the network and the arg-max, so all that is left is to read the manifest, to feed the
// bytes of an image of the network's size, and to write the labels. What this program cannot do as `deploy.load` does,
// it refuses: tiling, resizing, floating-point inputs, thresholds.
#include <fstream>
#include <iostream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "engine.hpp"

using Bytes = std::vector<std::uint8_t>;

static nlohmann::json read_manifest(const std::string& bundle) {
  std::ifstream file(bundle + "/manifest.json");
  if (!file) throw std::runtime_error(bundle + ": holds no manifest.json");
  auto manifest = nlohmann::json::parse(file);
  const auto& input = manifest.at("input");
  if (manifest.at("task") != "segmentation") throw std::runtime_error(bundle + ": is not for segmentation");
  if (input.at("dtype") != "uint8" || input.at("layout") != "NHWC")
    throw std::runtime_error(bundle + ": takes no bytes");
  if (!manifest.value("threshold", nlohmann::json()).is_null())
    throw std::runtime_error(bundle + ": has a threshold, which the graph does not apply");
  return manifest;
}

// The size is checked, so that a file that was copied in part is not run; `edgedistill verify` compares checksums.
static std::string model_file(const std::string& bundle, const nlohmann::json& manifest, const std::string& name) {
  const auto& entry = manifest.at("files").at(name);
  std::ifstream file(bundle + "/" + name, std::ios::binary | std::ios::ate);
  if (!file || static_cast<std::uint64_t>(file.tellg()) != entry.at("bytes").get<std::uint64_t>())
    throw std::runtime_error(bundle + "/" + name + ": is not the file that the manifest describes");
  return bundle + "/" + name;
}

static Bytes read_ppm(const std::string& path, const Shape& shape) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  std::int64_t width = 0, height = 0, most = 0;
  if (!(file >> magic >> width >> height >> most) || magic != "P6" || most != 255)
    throw std::runtime_error(path + ": is no binary PPM (P6) of bytes, without comments");
  if (height != shape.height || width != shape.width || shape.channels != 3)
    throw std::runtime_error(path + ": is " + std::to_string(height) + "x" + std::to_string(width) + "x3, the network takes " +
                             std::to_string(shape.height) + "x" + std::to_string(shape.width) + "x" +
                             std::to_string(shape.channels));
  file.ignore(1);  // the one whitespace after the header
  Bytes pixels(static_cast<std::size_t>(height * width * 3));
  if (!file.read(reinterpret_cast<char*>(pixels.data()), static_cast<std::streamsize>(pixels.size())))
    throw std::runtime_error(path + ": ends too early");
  return pixels;
}

static void write_pgm(const std::string& path, const Bytes& labels, const Shape& shape) {
  std::ofstream file(path, std::ios::binary);
  file << "P5\n" << shape.width << " " << shape.height << "\n255\n";
  file.write(reinterpret_cast<const char*>(labels.data()), static_cast<std::streamsize>(labels.size()));
  if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
}

static void run(const std::string& bundle, const std::string& image, const std::string& mask, const std::string& name) {
  const auto manifest = read_manifest(bundle);
  const auto& input = manifest.at("input");
  const Shape shape{input.at("height"), input.at("width"), static_cast<std::int64_t>(input.at("channels").size())};
  const auto labels = labels_of(model_file(bundle, manifest, name), read_ppm(image, shape), shape);
  write_pgm(mask, labels, shape);
  std::vector<std::size_t> counts(std::numeric_limits<std::uint8_t>::max() + 1);
  for (const auto label : labels) ++counts[label];
  const auto& classes = manifest.at("classes");
  for (std::size_t index = 0; index < classes.size(); ++index)
    std::cout << classes[index].at("name").get<std::string>() << " " << counts[index] << "\n";
}

int main(int count, char** words) {
  if (count != 4 && count != 5) {
    std::cerr << "usage: segment BUNDLE IMAGE.ppm MASK.pgm [model.onnx]\n";
    return 2;
  }
  try {
    run(words[1], words[2], words[3], count == 5 ? words[4] : "model.onnx");
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
  return 0;
}
